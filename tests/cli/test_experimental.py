"""`burnish experimental`: the list, names that are none, and the help of an entry."""

from burnish.cli.main import main


def test_the_list(capsys):
    for words in ([], ["--help"]):
        assert main(["experimental", *words]) == 0
    out, err = capsys.readouterr()
    first, second = out[: len(out) // 2], out[len(out) // 2 :]
    assert first == second
    assert err == ""
    lines = first.splitlines()
    assert lines[0] == "usage: burnish experimental ENTRY [OPTIONS]"
    assert lines[2].startswith("  profit  (owner: Burnish maintainers; expires on 20")
    assert lines[3].startswith("      Liu et al. 2026, ProFit")


def test_names_that_are_none(capsys):
    assert main(["experimental", "profut"]) == 2
    assert main(["experimental", "zzz"]) == 2
    assert capsys.readouterr().err == (
        "error: burnish experimental has no entry 'profut'; the nearest is 'profit'.\n"
        "error: burnish experimental has no entry 'zzz'; burnish experimental lists those it has.\n"
    )


def test_an_entrys_options_are_checked_like_any(capsys):
    assert main(["experimental", "profit", "--prob_threshhold", "0.2"]) == 2
    assert capsys.readouterr().err.endswith(
        "error: burnish experimental profit has no option --prob_threshhold; the nearest is --prob_threshold.\n"
    )
