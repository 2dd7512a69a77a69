"""A model on two devices draws what it draws on one; what does not fit is refused. Devices: tests/two_devices.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.errors import BankError
from mpg.models.hub import Place
from mpg.models.pretrained import load_weights
from mpg.models.spanning import spread
from tests.fakes import tiny_adapter, tiny_llama
from tests.two_devices import FIRST, KIND, SECOND, two_devices

ASKED = [Request([3, 5, 7 + i][: 2 + i % 2], {"E": 0.5, "J": 0.5}, seed=i) for i in range(5)]


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """These devices, too."""
    monkeypatch.setattr("mpg.models.served.DEVICES", ("cpu", "cuda", KIND))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spanning")
    base = tiny_llama(folder / "base", n_layers=4)
    for i, name in enumerate("EJ", 1):
        tiny_adapter(base, folder / name, seed=i)
    for i, name in enumerate("AB", 5):  # above the first two layers, which all branches share
        tiny_adapter(base, folder / name, seed=i, targets=["q_proj", "down_proj"], layers_to_transform=[2, 3])
    tiny_llama(folder / "W", seed=9, n_layers=4)
    return folder


def bytes_of(place: Path) -> int:
    model = load_weights(Place(str(place / "base")), torch.float32)
    return sum(each.numel() * each.element_size() for each in model.parameters())


def bank(place: Path, names: str = "EJ", **how: Any) -> ModelBank:
    return ModelBank.load(place / "base", {name: place / name for name in names}, **how)


def decoded(bank: ModelBank, asked: list[Request], settings: DecoderSettings) -> list[Any]:
    found = list(decode(bank, asked, settings, batch_size=3))
    return [(c.token_ids, c.log_prob_reference, list(c.log_ratios.values())) for c in found]


def same(found: list[Any], wanted: list[Any]) -> None:
    assert [each[0] for each in found] == [each[0] for each in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert a[1] == pytest.approx(b[1], abs=1e-4) and a[2] == pytest.approx(b[2], abs=1e-4)


@pytest.mark.parametrize("name", ["scr-exact", "routing", "mod", "scr"])
def test_texts_and_books_are_those_of_one_device(place: Path, name: str) -> None:
    settings = DecoderSettings(name=name, max_new_tokens=10, chunk_len=3, horizon=4)
    wanted = decoded(bank(place), ASKED, settings)
    half = int(0.8 * bytes_of(place))
    with two_devices() as devices:
        spanning = bank(place, device=FIRST, max_memory={FIRST: half, SECOND: half})
        assert spanning.backbones[0].devices == (FIRST, SECOND)  # type: ignore[attr-defined]
        assert spanning.device == FIRST and spanning.backbones[0].way == "lean"  # type: ignore[attr-defined]
        devices.moves = 0
        same(decoded(spanning, ASKED, settings), wanted)
        assert devices.moves


def test_transformers_own_pass_spans_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Types that have no lean pass: the same model by transformers' modules."""
    import mpg.models.backbone as backbone

    monkeypatch.setattr(backbone, "way_of", lambda config: "general")
    settings = DecoderSettings(max_new_tokens=8, chunk_len=3, horizon=4)
    wanted = decoded(bank(place), ASKED, settings)
    half = int(0.8 * bytes_of(place))
    with two_devices():
        spanning = bank(place, device=FIRST, max_memory={FIRST: half, SECOND: half})
        same(decoded(spanning, ASKED, settings), wanted)


def test_what_branches_share_spans_too(place: Path) -> None:
    settings = DecoderSettings(max_new_tokens=8, chunk_len=3, horizon=4)
    asked = [Request(each.prompt_ids, {"A": 0.5, "B": 0.5}, seed=each.seed) for each in ASKED]
    on_one = bank(place, "AB")
    wanted, half = decoded(on_one, asked, settings), int(0.8 * bytes_of(place))
    cache, trunk = on_one.backbones[0]._spare  # type: ignore[attr-defined]
    assert trunk is not None and cache.first_layer == 2
    with two_devices():
        spanning = bank(place, "AB", device=FIRST, max_memory={FIRST: half, SECOND: half})
        same(decoded(spanning, asked, settings), wanted)


def test_several_models_share_the_room(place: Path) -> None:
    settings = DecoderSettings(max_new_tokens=8, chunk_len=3, horizon=4)
    asked = [Request(r.prompt_ids, {"E": 0.5, "W": 0.5}, seed=r.seed) for r in ASKED]
    wanted, size = decoded(bank(place, "EW"), asked, settings), bytes_of(place)
    with two_devices():
        spanning = bank(place, "EW", device=FIRST, max_memory={FIRST: int(1.6 * size), SECOND: int(1.2 * size)})
        assert [each.devices for each in spanning.backbones] == [(FIRST,), (FIRST, SECOND)]  # type: ignore[attr-defined]
        same(decoded(spanning, asked, settings), wanted)


def test_a_model_that_does_not_fit_is_refused(place: Path) -> None:
    room, size = {FIRST: 1000, SECOND: 1000}, bytes_of(place)
    with two_devices(), pytest.raises(BankError, match=rf"take {size:,} bytes.*2,000.*on 2 devices; take") as caught:
        bank(place, device=FIRST, max_memory=room)
    assert "\n" not in str(caught.value)
    model = load_weights(Place(str(place / "base")), torch.float32)
    model._no_split_modules = None
    with pytest.raises(BankError, match=r"'llama' does not say which of its parts stay together.*take one that fits"):
        spread(model, room, "base")


def test_tensors_of_two_devices_do_not_meet() -> None:
    """Else these tests would show nothing."""
    with two_devices():
        a, b = torch.ones(2, device=FIRST), torch.ones(2, device=SECOND)
        assert (a + b.to(FIRST)).tolist() == [2, 2]
        for wrong in (lambda: a + b, lambda: a[b.long()], lambda: a @ b, lambda: a + torch.ones(2)):
            with pytest.raises(RuntimeError, match="lie on"):
                wrong()
