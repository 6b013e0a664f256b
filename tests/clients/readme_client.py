"""The program of the README, as it stands there, but for the address and the key."""

import contextlib
import io
import pathlib

from checks import BASE, KEY, check, needs_headway, run


@check
@needs_headway
def runs_the_program_of_the_readme():
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    program = text.split("```python\n", 1)[1].split("```", 1)[0]
    for old, new in (("http://localhost:8080", BASE), ('"none"', repr(KEY))):
        assert old in program, program
        program = program.replace(old, new)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {})
    assert out.getvalue().strip(), "it printed nothing"


if __name__ == "__main__":
    run("README")
