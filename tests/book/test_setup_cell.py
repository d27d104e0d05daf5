"""What a reader's Colab runs first, and that every place names the same repository and site."""

import os
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import places
from tools.book import setup_cell
from tools.site import address


def test_the_cell_asks_for_the_served_wheel_and_for_nothing_that_colab_has():
    text = setup_cell.text()
    assert f"{places.site()}{setup_cell.wheel()}" in text and "neural-tangents==" in text
    asked = text.split("%pip install")[2].splitlines()[0]
    assert '"optax' in asked and "frozendict" in asked
    assert not any(name in asked for name in (*setup_cell.ON_COLAB, "tensorflow"))


def test_the_cell_installs_nothing_where_the_library_is():
    source = setup_cell.text().replace("    %pip", "    raise AssertionError #")
    exec(compile(source, "cell", "exec"), {})


@pytest.mark.parametrize("accelerator", ["cuda", "tpu"])
def test_the_cell_chooses_the_cpu_beside_a_gpu_or_tpu(accelerator):
    """There is none here: JAX, told to use one as on such a runtime of Colab, fails when it looks for it."""
    ask = "import jax, nteq.kernels, nteq.ensembles\nprint(jax.numpy.ones(2).devices())"
    environment = {**os.environ, "JAX_PLATFORMS": accelerator}

    def run(code):
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    assert run(ask).returncode != 0
    cell = setup_cell.text().replace("    %pip", "    raise AssertionError #")
    assert run(f"{cell}\n{ask}").stdout.strip() == "{CpuDevice(id=0)}"


def test_the_cell_comes_once_and_before_the_other_code():
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("1"), new_code_cell("2")])
    setup_cell.insert(notebook)
    setup_cell.insert(notebook)
    assert [cell.source for cell in notebook.cells] == ["# T", setup_cell.text(), "1", "2"]


def test_every_file_of_this_repository_agrees_with_the_configuration():
    assert address.disagreements() == []


@pytest.fixture
def fork(tmp_path, monkeypatch):
    """The files that name an address, with another one in _config.yml."""
    for name in ("_config.yml", *address.FILES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(places.ROOT / name, tmp_path / name)
    notebook = new_notebook(cells=[new_code_cell("1", metadata={"tags": []})])
    setup_cell.insert(notebook)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "one.ipynb")
    configuration = (tmp_path / "_config.yml").read_text()
    configuration = configuration.replace(places.repository(), "https://github.com/ada/course")
    configuration = configuration.replace(places.site(), "https://ada.example/courses/ntk/")
    (tmp_path / "_config.yml").write_text(configuration)
    monkeypatch.setattr(places, "ROOT", tmp_path)
    return tmp_path


def test_a_fork_with_another_address_is_noticed_and_brought_in_step(fork, capsys):
    wrong = {str(path.relative_to(fork)) for path in address.disagreements()}
    assert wrong == {*address.FILES, "notebooks/one.ipynb"}
    assert address.main() == 0
    assert address.disagreements() == []
    stored = nbformat.read(fork / "notebooks" / "one.ipynb", as_version=4)
    assert "https://ada.example/courses/ntk/nteq-" in stored.cells[0].source
    assert "https://github.com/ada/course" in (fork / "CITATION.cff").read_text()
    assert address.main() == 0 and "Every file names" in capsys.readouterr().out


def test_a_notebook_without_the_cell_is_noticed(fork):
    address.main()
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), fork / "notebooks" / "two.ipynb")
    assert [path.name for path in address.disagreements()] == ["two.ipynb"]


def test_a_site_without_its_slash_is_named(fork):
    path = fork / "_config.yml"
    path.write_text(path.read_text().replace("/courses/ntk/", "/courses/ntk"))
    with pytest.raises(SystemExit, match="must end in a slash"):
        address.main()
