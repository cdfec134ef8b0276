"""ProFit: supervised fine-tuning on those tokens alone that the model finds likely enough."""

import lazy_loader as lazy

from burnish.experimental import warn_of

warn_of(__name__)

__getattr__, __dir__, __all__ = lazy.attach(__name__, submod_attrs={"config": ["ProFitConfig"], "method": ["ProFitTrainer"]})
