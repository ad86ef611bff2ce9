"""The right net: found among those at hand, compared on the same folds, honest about noise."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx.data import read_listing
from plusx.errors import UsageError
from plusx.evaluate.intervals import Figure
from plusx.fit.cache import TrunkCache
from plusx.fit.cache_key import file_keys
from plusx.fit.cache_rows import RowTable
from plusx.fit.probe import cross_validate
from plusx.jobs.bench_timing import Timing
from plusx.jobs.choose_candidates import LADDER, Candidate, Net, find_candidates, in_folder
from plusx.jobs.choose_estimate import estimate
from plusx.jobs.choose_figures import Judged, advise, compare_all, fitting_size
from plusx.jobs.choose_options import ChooseOptions, parse_latency
from plusx.jobs.choose_work import tie_copies
from plusx.jobs.talk import Talk
from plusx.weights.hub import cached_folder
from plusx.weights.load import disk_state

QUICK = {"seconds": 0.05, "device": "cpu"}


@pytest.fixture(autouse=True)
def _empty_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def shelf(tiny_weights, tmp_path_factory):
    """Weights of three nets: a model folder, a file with its variant's name, one with a spec."""
    import torch
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("shelf")
    shutil.copytree(tiny_weights, folder / "tiny")
    net = plusx.create("resnet8_cifar_a", weights="none", classes=10)
    torch.save(disk_state(net), folder / "resnet8_cifar_a-1234.pth")
    (folder / "mine.json").write_text(json.dumps(TINY | {"name": "mine", "depths": [1, 2, 1]}))
    net = plusx.create(str(folder / "mine.json"), weights="none", classes=10)
    torch.save(disk_state(net), folder / "mine.pth")
    (folder / "README.md").write_text("not a net")
    return folder


NAMES = "tiny,resnet8_cifar_a,mine"


@pytest.fixture(scope="module")
def chosen(photos, shelf, tmp_path_factory):
    """A finished choice; read it, don't write to it."""
    folder = tmp_path_factory.mktemp("chosen")
    talk = Talk(quiet=True)
    return plusx.choose(photos, models=NAMES, weights_dir=shelf, out=folder / "out",
                        cache=folder / "cache", talk=talk, **QUICK)  # fmt: skip


def test_a_choice_leaves_a_page_and_figures(chosen):
    kept = json.loads((chosen.path / "choose.json").read_text())
    assert kept == json.loads(json.dumps(chosen.to_json()))
    assert {one["name"] for one in kept["nets"]} == set(NAMES.split(","))
    assert kept["images"] == 64  # train alone: val is left alone
    assert "32 of other splits were left alone" in kept["which"]
    assert kept["role"] == "selection"
    assert kept["always_one_class"] == 0.5
    times = [one["latency"]["p50_ms"] for one in kept["nets"]]
    assert times == sorted(times)
    assert chosen.take in kept["sentence"]
    page = (chosen.path / "report.html").read_text()
    assert f"<h1>Take {chosen.take}</h1>" in page
    assert "http-equiv" in page
    assert "<script" not in page
    for one in kept["nets"]:
        assert f"{100 * one['top1']['value']:.1f}%" in page
    assert (chosen.path / "front.svg").read_text().startswith("<svg")
    assert (chosen.path / "front.png").is_file()


def test_the_figures_are_those_of_cross_validation(chosen, photos):
    samples = read_listing(photos).part("train")
    (entry,) = (one for one in TrunkCache(chosen.path.parent / "cache" / "trunk", 2**30).entries()
                if one.about["net"] == "mine")  # fmt: skip
    table = RowTable(entry.folder, entry.about["row_bytes"])
    table.load()
    keys = file_keys([sample.path for sample in samples])
    features = table.read(table.find(keys, 0)).view(np.float32)
    targets = np.array([sample.targets[0] for sample in samples])
    found = cross_validate(features, targets, classes=2, repeats=5, folds=5, seed=0)
    (mine,) = (one for one in chosen.nets if one.name == "mine")
    assert mine.top1.value == pytest.approx(found.figure.value)
    assert (mine.right == (found.logits.argmax(2) == targets)).all()


def test_features_are_found_again_wherever_the_images_lie(chosen, photos, shelf, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(photos, moved)
    talk = Talk(quiet=True)
    talk.log_to(tmp_path / "log")
    again = plusx.choose(moved, models="mine,tiny", weights_dir=shelf, out=tmp_path / "out",
                         cache=chosen.path.parent / "cache", talk=talk, **QUICK)  # fmt: skip
    said = (tmp_path / "log").read_text()
    assert "features of mine of an earlier run are used again" in said
    assert "features of tiny of an earlier run are used again" in said
    before = {one.name: one.top1 for one in chosen.nets}
    assert {one.name: one.top1 for one in again.nets} == {k: before[k] for k in ("mine", "tiny")}


def test_damaged_features_are_computed_again(chosen, photos, shelf, tmp_path):
    shutil.copytree(chosen.path.parent / "cache", tmp_path / "cache")
    for file in (tmp_path / "cache").rglob("rows.bin"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = plusx.choose(photos, models="mine", weights_dir=shelf, out=tmp_path / "out",
                         cache=tmp_path / "cache", talk=Talk(quiet=True), **QUICK)  # fmt: skip
    (mine,) = (one for one in chosen.nets if one.name == "mine")
    assert again.nets[0].top1 == mine.top1
    assert again.advice.sentence.endswith("it is the only net at hand.")


def test_an_unreadable_image_is_left_out_of_all_nets(command, photos, shelf, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos / "train", data / "train")
    (data / "train" / "across" / "broken.png").write_bytes(b"\x89PNG nothing")
    for _ in range(2):  # a second run knows the others' features
        done = command("choose", data, "--models", "tiny,mine", "--weights-dir", shelf, "--json",
                       "--seconds", "0.05", "--device", "cpu", "--out", tmp_path / "out",
                       "--cache", tmp_path / "cache", "--val-fraction", "0.2")  # fmt: skip
        assert done.code == 1, done
        found = json.loads(done.out)
        assert [path.rpartition("/")[2] for path in found["bad"]] == ["broken.png"]
        assert found["images"] == 64


def test_images_that_training_would_set_aside_are_left_alone(photos, shelf, tmp_path):
    found = plusx.choose(photos / "train", models="tiny", weights_dir=shelf, out=tmp_path / "out",
                         talk=Talk(quiet=True), **QUICK)  # fmt: skip
    assert found.about["images"] == 52
    assert "the 12 that plusx train would set aside" in found.about["which"]


def test_the_screen(command, photos, shelf, tmp_path):
    words = ("choose", photos, "--models", f"{NAMES},resnet34", "--weights-dir", shelf,
             "--seconds", "0.05", "--device", "cpu", "--out", tmp_path / "out")  # fmt: skip
    done = command(*words, "--dry-run")
    assert done.out.startswith("about ")
    assert "3 nets on 64 images" in done.out
    assert "left out: resnet34: not in the hub's cache; --download fetches it" in done.out
    assert not (tmp_path / "out").exists()
    done = command(*words, "--latency", "10s")
    assert done.code == 0
    assert "the most accurate within 10000 ms" in done.out
    assert "skipped: resnet34: not in the hub's cache" in done.err
    assert done.out.splitlines()[0].split()[:2] == ["net", "top-1"]


def test_an_estimate_counts_what_is_kept(chosen, photos, shelf):
    found = estimate(photos, models="mine,tiny", weights_dir=shelf, talk=Talk(quiet=True),
                     cache=chosen.path.parent / "cache", **QUICK)  # fmt: skip
    assert (found.nets, found.images, found.kept) == (("mine", "tiny"), 64, 128)
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--latency", "0.00001ms"], "no net at hand is that fast with torch; the fastest, tiny,"),
        (["--latency", "soon"], "--latency 'soon' is no time above 0; write it as 20ms"),
        (["--engine", "tensorrt"], "--engine 'tensorrt' is not one of torch,"),
        (["--precision", "int3"], "--precision 'int3' is not one of auto,"),
        (["--images", "3"], "--images 3 must be from 20 to 8,192"),
        (["--models", "resnet34"], "no net is at hand (resnet34: not in the hub's cache"),
        (["--models", "resnet5O"], "--models resnet5O: model 'resnet5O' is unknown"),
        (["--models", "plain_resnet18"], "no trained weights are known for plain_resnet18"),
        (["--weights-dir", "nowhere"], "--weights-dir nowhere: is no folder"),
        (["--models", "mine=nothing.pth"], "no net is at hand (mine: "),
    ],
)
def test_what_cannot_be_chosen_is_one_line(command, photos, shelf, tmp_path, words, said):
    done = command("choose", photos, "--models", "tiny", "--weights-dir", shelf, "--seconds",
                   "0.05", "--out", tmp_path / "out", *words)  # fmt: skip
    assert said in done.error
    assert not (tmp_path / "out").exists()


def test_data_with_one_class_or_several_labels_is_refused(command, photos, tmp_path):
    shutil.copytree(photos / "train" / "across", tmp_path / "one" / "across")
    assert "class" in command("choose", tmp_path / "one").error
    (tmp_path / "multi.csv").write_text("path,label\n" + "\n".join(
        f"{path},{'a;b' if i % 2 else 'b'}"
        for i, path in enumerate(sorted(photos.rglob("*.png"))[:8])))  # fmt: skip
    assert "several labels an image" in command("choose", tmp_path / "multi.csv").error


def test_a_folder_of_something_else_is_not_written_to(command, photos, shelf, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    done = command("choose", photos, "--weights-dir", shelf, "--out", tmp_path / "out")
    assert "holds no choice of plusx" in done.error


def test_a_shelf_is_read_by_names_and_specs(shelf, tmp_path):
    found = {one.name: one for one in in_folder(shelf)}
    assert set(found) == {"tiny", "resnet8_cifar_a", "mine"}
    assert found["mine"].model == str(shelf / "mine.json")
    for name in ("resnet50-0676ba61.pth", "resnet50d_x.safetensors", "wide_resnet50_2.pth"):
        (tmp_path / name).write_bytes(b"")
    models = {one.weights.rpartition("/")[2]: one.model for one in in_folder(tmp_path)}
    assert list(models.values()) == ["resnet50", "resnet50d", "wide_resnet50_2"]
    (tmp_path / "resnet50-other.pth").write_bytes(b"")
    names = {one.name for one in in_folder(tmp_path)}
    assert {"resnet50-0676ba61", "resnet50-other", "wide_resnet50_2"} <= names


def test_a_name_that_is_no_network_is_what_the_net_is_called():
    found, _ = find_candidates(ChooseOptions("x", models="ours=runs/one, resnet50=mine.pth"))
    assert found == [Candidate("ours", None, "runs/one"),
                     Candidate("resnet50", "resnet50", "mine.pth")]  # fmt: skip


def test_what_the_hubs_cache_holds_whole_is_at_hand(tmp_path):
    assert cached_folder("timm/resnet18.a1_in1k") is None
    home = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("c0ffee")
    snapshot = home / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert cached_folder("timm/resnet18.a1_in1k") is None  # its weights are not there
    (snapshot / "model.safetensors").write_bytes(b"")
    assert cached_folder("timm/resnet18.a1_in1k") == snapshot
    found, skipped = find_candidates(ChooseOptions("x"))
    assert found[0] == Candidate("resnet18", "resnet18", str(snapshot))
    assert set(LADDER[1:]) <= set(skipped)
    assert "plusx_small" in {one.name for one in found}
    found, skipped = find_candidates(ChooseOptions("x", models="resnet34", download=True))
    assert found == [Candidate("resnet34", "resnet34", "timm/resnet34.ra4_e3600_r224_in1k")]
    assert not skipped


def test_latency_is_read_in_both_units():
    assert parse_latency("20ms") == parse_latency("0.02s") == parse_latency(20) == 20
    assert parse_latency(None) is None
    with pytest.raises(UsageError, match=r"unknown option latencies; known: .*models"):
        ChooseOptions.of("x", latencies=3)


def test_copies_are_one_group(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 9 if name == "b/3.png" else 3).save(tmp_path / name)
    samples = read_listing(tmp_path, training=False).samples
    groups = tie_copies(samples, file_keys([one.path for one in samples]))
    assert groups is not None
    assert groups[0] == groups[1] != groups[2]
    assert tie_copies(samples[1:], file_keys([one.path for one in samples[1:]])) is None


def judged(name, ms, right, variant=None):
    """A net that is right where ``right`` (n,) says so."""
    net = Net(Candidate(name, name, "x"), variant or name, {}, "file:x", "0" * 64,
              None, 1, 1, 1.0)  # fmt: skip
    value = float(right.mean())
    time = Timing(ms, ms, ms, ms, 1000 / ms, 9)
    return Judged(net, time, Figure(value, value, value), np.stack([right] * 2))


def rights(n, shares, seed=0):
    """Nets with these shares of right answers; the images are as hard for each."""
    hardness = np.random.default_rng(seed).permutation(np.arange(n) / n)
    return [hardness < share for share in shares]


def test_noise_is_called_noise_and_the_faster_net_taken():
    small, large = rights(200, [0.90, 0.91])
    found = compare_all([judged("resnet50", 30, large), judged("resnet18", 10, small)], None)
    assert [one.name for one in found] == ["resnet18", "resnet50"]
    advice = advise(found, None)
    assert advice.take == "resnet18"
    assert "that may be noise" in advice.sentence
    assert str(advice.deeper).startswith("No gain from depth can be shown")


def test_a_lead_that_is_more_than_chance_is_taken():
    small, large = rights(2_000, [0.80, 0.90])
    found = compare_all([judged("resnet18", 10, small), judged("resnet50", 30, large)], None)
    advice = advise(found, None)
    assert advice.take == "resnet50"
    assert "the lead over each other net is more than chance" in advice.sentence
    assert "Deeper is better for you: resnet50 less resnet18 is +10.0 points" in str(advice.deeper)
    within = advise(found, None, budget_ms=20)
    assert within.take == "resnet18"
    assert "resnet50 (90.0%, 30 ms) is 10.0 points" in within.sentence
    assert "more than chance explains" in within.sentence
    assert advise(found, None, budget_ms=40).sentence.endswith("within 40 ms and of all.")


def test_a_lead_over_faster_nets_is_claimed_where_there_are_some():
    best, other = rights(200, [0.91, 0.90])
    found = compare_all([judged("a", 10, best), judged("b", 30, other)], None)
    assert "it is the most accurate and the fastest; b is slower" in advise(found, None).sentence
    worse, best, other = rights(2_000, [0.60, 0.901, 0.90])
    nets = [judged("a", 5, worse), judged("b", 10, best), judged("c", 30, other)]
    said = advise(compare_all(nets, None), None).sentence
    assert "the lead over each faster net is more than chance; c is slower" in said


def test_a_slower_net_that_is_no_better_is_off_the_front():
    low, mid, high = rights(1_000, [0.70, 0.70, 0.90])
    found = compare_all([judged("a", 10, low), judged("b", 20, mid), judged("c", 30, high)], None)
    assert [one.on_front for one in found] == [True, False, True]
    assert [one.as_good for one in found] == [False, False, True]
    assert advise(found, None).deeper is None


def test_differences_are_wider_where_images_come_in_groups():
    small, large = rights(400, [0.85, 0.90])
    pair = [judged("a", 10, np.sort(small)), judged("b", 30, np.sort(large))]
    alone, grouped = (compare_all(pair, groups)[0].to_best
                      for groups in (None, np.arange(400) // 40))  # fmt: skip
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_never_more_images_than_can_be_held():
    assert fitting_size(2_000, 10) == 2_000
    assert fitting_size(2_000, 10_000) * 10_000 * 10 <= 2**25


def test_the_hymenoptera_nets(shared_data, tmp_path):
    """A pretrained 18 against the bundled net: the difference is far more than chance."""
    weights = shared_data / "weights" / "resnet18_imagenet_pq.safetensors"
    found = plusx.choose(
        shared_data / "data" / "hymenoptera", models=f"plusx_small,resnet18={weights}", images=60,
        out=tmp_path / "out", talk=Talk(quiet=True), seconds=0.1, device="cpu",
    )  # fmt: skip
    assert [one.name for one in found.nets] == ["plusx_small", "resnet18"]
    assert found.take == "resnet18"
    assert found.nets[1].top1.value > 0.85
    assert not found.nets[0].as_good
