"""One HTML file about runs that one can read anywhere: `write_report`; and the same page beside a run that goes on: `serve`.

`runs` reads what a run says of itself, `series` its metrics, `samples` what it sampled, `vocabulary` what its tokens say; `page` puts them
into one file with `assets/`, `live` serves them.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__, submod_attrs={"live": ["serve"], "page": ["write_report"], "runs": ["PageError", "check_run"]}
)
