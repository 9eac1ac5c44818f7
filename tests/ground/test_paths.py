"""A private folder is closed to others, unless it is not ours to close."""

from __future__ import annotations

import os
import stat

import pytest

from cnai import paths
from cnai.paths import open_to_others, private
from run import accounts


@pytest.fixture(autouse=True)
def _home(home):
    """A home that doesn't exist yet."""


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["000", "022", "077"])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_for_temporary_files_is_no_choice_of_where_torch_keeps_code(home):
    ours = str(home / "engine" / "torchinductor")
    theirs = "/tmp/torchinductor_ada"
    assert paths.compiled_dir({}) == paths.compiled_dir({"TORCHINDUCTOR_CACHE_DIR": theirs}) == ours
    assert paths.compiled_dir({"TORCHINDUCTOR_CACHE_DIR": "/scratch/ada"}) == "/scratch/ada"


def test_new_ones_whatever_the_umask(tmp_path, umask):
    folder = private(tmp_path / "data" / "ada" / "runs")
    assert [mode(each) for each in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3


def test_a_folder_below_the_home_closes_the_home(home, umask):
    home.mkdir()
    home.chmod(0o777)
    (home / "runs").mkdir()
    (home / "runs").chmod(0o755)
    assert private(home / "runs") == home / "runs"
    assert (mode(home), mode(home / "runs")) == (0o700, 0o700)


def test_what_is_in_it_stays_as_it_is(tmp_path, usual_umask):
    (tmp_path / "runs" / "one").mkdir(parents=True)
    private(tmp_path / "runs")
    assert mode(tmp_path / "runs" / "one") == 0o755


def test_through_a_link(tmp_path, home, usual_umask):
    (tmp_path / "disk").mkdir()
    home.symlink_to(tmp_path / "disk")
    private(home / "engine")
    assert home.is_symlink()
    assert (mode(tmp_path / "disk"), mode(tmp_path / "disk" / "engine")) == (0o700, 0o700)


def test_a_file_or_a_dangling_link_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for wrong in ("file", "link"):
        with pytest.raises(FileExistsError):
            private(tmp_path / wrong)
    with pytest.raises(NotADirectoryError):
        private(tmp_path / "file" / "runs")


def test_a_folder_made_for_a_group_keeps_the_group(tmp_path):
    for before, after in ((0o2775, 0o2770), (0o2755, 0o2700), (0o775, 0o700)):
        folder = tmp_path / f"{before:o}"
        folder.mkdir()
        folder.chmod(before)
        assert mode(private(folder)) == after


def test_what_all_share_stays_open_and_is_told_once(reachable, caplog, usual_umask):
    folder = reachable / "scratch"
    folder.mkdir()
    folder.chmod(0o1777)
    for _ in range(2):
        assert mode(private(folder)) == 0o1777
    assert caplog.messages == [
        f"other accounts can open {folder}, which is shared and stays open; cnai closes folders that it creates in it"
    ]
    assert mode(private(folder / "runs")) == 0o700
    assert len(caplog.messages) == 1


def test_the_accounts_own_home_and_mounted_folders_stay(tmp_path, monkeypatch, usual_umask):
    for folder in ("account", "mounted"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "account"))
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(tmp_path / "mounted"))
    assert mode(private(tmp_path / "account")) == 0o755
    assert mode(private(tmp_path / "mounted")) == 0o755
    assert not paths._is_ours(paths.Path("/usr"), paths.Path("/usr").stat())


@accounts.needed
def test_a_folder_of_another_account_stays(reachable, caplog):
    folder = reachable / "theirs"
    folder.mkdir()
    folder.chmod(0o755)
    os.chown(folder, accounts.NOBODY, accounts.NOBODY)
    assert mode(private(folder)) == 0o755
    assert len(caplog.messages) == 1


def test_others_need_a_way_to_it(reachable):
    folder = reachable / "closed" / "open"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    folder.parent.chmod(0o700)
    assert not open_to_others(folder)
    folder.parent.chmod(0o711)
    assert open_to_others(folder)
    folder.chmod(0o750)
    assert not open_to_others(folder)


def test_a_frozen_folder_is_removed_but_not_what_its_links_lead_to(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o750)
    kept.chmod(0o750)
    (tmp_path / "frozen" / "deep").mkdir(parents=True)
    (tmp_path / "frozen" / "deep" / "link").symlink_to(kept)
    (tmp_path / "frozen" / "deep").chmod(0o500)
    paths.remove_tree(tmp_path / "frozen")
    paths.remove_tree(tmp_path / "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert kept.stat().st_mode & 0o777 == 0o750
