"""Configuration: what is refused, in which words; overrides, round trips, the JSON Schema."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from typer.testing import CliRunner

from data.errors import InputError
from moe.config.experiment import Experiment, load_experiment, load_model, make_experiment
from moe.config.model import ModelConfig
from moe.config.presets.catalog import preset_names
from moe.config.schema import experiment_schema
from moe.errors import ConfigError
from moescale import app
from tests.support.hostile_json import mutations
from tests.support.paths import ROOT

SHIPPED = ("moe", "data", "parallel", "benchmarks", "slurm", "examples")
TRAIN = {"steps": 4, "seq_len": 64, "global_batch_size": 2}
IN_FP8 = {"kernels": "te", "dtype": "bf16", "fp8_parameters": True}


def experiment(**sections: Any) -> Experiment:
    return make_experiment({"model": {"preset": "tiny"}, "train": TRAIN} | sections)


def model(**values: Any) -> ModelConfig:
    return experiment(model={"preset": "tiny"} | values).model


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hiden_size": 64}, "unknown key model.hiden_size: did you mean model.hidden_size?"),
        ({"moe": {"topk": 2}}, "unknown key model.moe.topk: did you mean model.moe.top_k?"),
        ({"num_layers": 0}, "model.num_layers = 0: input should be greater than 0"),
        ({"moe": {"top_k": 9}}, "top_k=9 exceeds num_experts=4: lower top_k"),
        ({"moe": {"top_k": 1}}, "top_k=1 needs normalize_top_k=false"),
        ({"moe": {"num_groups": 3, "group_top_k": 1}}, "not divisible by num_groups=3"),
        ({"moe": {"num_groups": 2, "group_top_k": 3}}, "group_top_k=3 exceeds num_groups=2"),
        (
            {"moe": {"num_groups": 4, "group_top_k": 1}},
            "top_k=2 exceeds the 1 experts of each of group_top_k=1 groups",
        ),
        ({"moe": {"num_groups": 2}}, "num_groups and group_top_k go together"),
        ({"moe": {"shared_expert_gate": True}}, "needs shared_expert_ffn_hidden_size > 0"),
        ({"moe": {"expert_bias": True}}, 'expert_bias needs score_function = "sigmoid"'),
        ({"moe": {"first_dense_layers": 2}}, "leaves none of the num_layers=2 layers sparse"),
        (
            {"moe": {"load_balancing": "expert_choice"}},
            "model.moe.load_balancing: 'expert_choice': megatron-core has no such routing",
        ),
        ({"moe": {"forced_balance": "maybe"}}, "input should be False, True or 'random'"),
        (
            {"moe": {"load_balancing": "sinkhorn", "capacity_factor": 1.0}},
            'capacity_factor does not go with load_balancing = "sinkhorn": remove it',
        ),
        ({"moe": {"capacity_factor": 1e300}}, "capacity_factor=1e+300 exceeds num_experts=4"),
        ({"moe": {"group_score_experts": 2}}, "group_score_experts needs num_groups"),
        (
            {"moe": {"num_groups": 2, "group_top_k": 1, "group_score_experts": 3}},
            "group_score_experts=3 exceeds the 2 experts of a group",
        ),
        ({"mtp_layers": 1, "sliding_window": 4, "full_attention_interval": 2}, "with mtp_layers"),
        ({"num_kv_heads": 3}, "num_heads=4 is not divisible by num_kv_heads=3"),
        ({"full_attention_interval": 2}, "full_attention_interval needs sliding_window"),
        ({"rope": {"factor": 8.0}}, "factor=8.0 does nothing with scaling"),
        (
            {"linear_bias": True, "moe": {"shared_expert_ffn_hidden_size": 8}},
            "linear_bias does not go with shared experts",
        ),
        (
            {
                "mla": {
                    "kv_lora_rank": 8,
                    "qk_nope_head_dim": 8,
                    "qk_rope_head_dim": 8,
                    "v_head_dim": 8,
                },
                "num_kv_heads": 4,
            },
            "qk_norm does not go with [model.mla]: remove it",
        ),
    ],
)
def test_wrong_models_are_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        model(**values)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": TRAIN | {"seq_len": 999}}, "longer than the model's max_seq_len=128"),
        ({"train": {"steps": 4, "seq_len": 64}}, "train.global_batch_size is missing"),
        ({"train": TRAIN | {"learning_rate": 1e308}}, "train.learning_rate = 1e+308: input should"),
        ({"trian": {}}, "unknown key trian: did you mean train?"),
        ({"parallel": {"vpp": 2}}, "vpp=2 needs pipeline stages"),
        ({"precision": {"fp8": "yes"}}, "precision.fp8 = 'yes'"),
        ({"model": {"preset": "tinny"}}, "did you mean tiny?"),
        (
            {
                "precision": IN_FP8 | {"fp8": "current"},
                "parallel": {"distributed_optimizer": False},
            },
            "precision.fp8_parameters = true needs parallel.distributed_optimizer = true",
        ),
        (
            {
                "precision": IN_FP8 | {"fp8": "mxfp8"},
                "parallel": {"overlap_grad_reduce": True, "overlap_param_gather": True},
            },
            "parallel.overlap_param_gather = true does not go with precision.fp8 =",
        ),
        (
            {
                "precision": IN_FP8 | {"fp8": "mxfp8"},
                "model": {"preset": "tiny", "attention_sinks": True},
            },
            "model.attention_sinks = true does not go with precision.fp8 =",
        ),
        (
            {
                "model": {"preset": "tiny", "mtp_layers": 1},
                "parallel": {"ep": 2, "overlap_experts": True},
            },
            "model.mtp_layers = 1 is not in parallel.overlap_experts = true",
        ),
        (
            {"parallel": {"cp": 2}, "precision": {"kernels": "te"}},
            'precision.dtype = "fp32" is not in precision.kernels = "te" with parallel.cp = 2',
        ),
        (
            {
                "model": {"preset": "tiny", "sliding_window": 8},
                "parallel": {"cp": 2},
                "precision": {"kernels": "te", "dtype": "bf16"},
            },
            'model.sliding_window = 8 is not in precision.kernels = "te" with'
            ' parallel.context_exchange = "p2p": set it to "all_gather" or "a2a"',
        ),
        (
            {
                "model": {"preset": "tiny", "attention_sinks": True},
                "parallel": {"cp": 2, "context_exchange": "all_gather"},
                "precision": {"kernels": "te", "dtype": "bf16"},
            },
            'model.attention_sinks = true is not in precision.kernels = "te" with'
            ' parallel.context_exchange = "all_gather": set it to "a2a"',
        ),
        (
            {"parallel": {"cp": 2, "context_exchange": "a2a"}},
            'parallel.context_exchange = "a2a" is not in precision.kernels = "torch"',
        ),
        ({"parallel": {"context_exchange": "p2p"}}, 'context_exchange="p2p" needs cp >= 2'),
        (
            {"model": {"preset": "tiny", "qk_norm": "full"}, "precision": {"kernels": "te"}},
            'qk_norm = "full" is not in precision.kernels = "te"',
        ),
        (
            {
                "model": {"preset": "tiny", "moe": {"expert_ffn_hidden_size": 12}},
                "precision": {"dtype": "bf16"},
            },
            'moe.expert_ffn_hidden_size=12 over etp=1: with precision.dtype = "bf16" torch\'s'
            " grouped products need a multiple of 8",
        ),
        (
            {
                "model": {"preset": "tiny", "moe": {"expert_ffn_hidden_size": 36}},
                "parallel": {"tp": 2, "etp": 2},
            },
            "moe.expert_ffn_hidden_size=36 over etp=2",
        ),
    ],
)
def test_wrong_experiments_are_refused_in_one_line(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        experiment(**sections)
    assert message in str(refused.value)


def test_overrides_reach_every_depth(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps({"model": {"preset": "tiny"}, "train": TRAIN}))
    loaded = load_experiment(
        path, ["train.steps=9", "model.moe.top_k = 3", "model.qk_norm=full", "name=other"]
    )
    assert loaded.train.steps == 9
    assert loaded.model.moe is not None
    assert loaded.model.moe.top_k == 3
    assert loaded.model.moe.num_experts == 4
    assert loaded.model.qk_norm == "full"
    assert loaded.name == "other"
    with pytest.raises(InputError, match="write it as section.key=value"):
        load_experiment(path, ["train.steps"])
    with pytest.raises(InputError, match="name is a value, not a section"):
        load_experiment(path, ["name=x", "name.deep=1"])


@pytest.mark.parametrize("content", [b"[model", b"\xff"], ids=["broken", "not-utf8"])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml: not valid TOML"):
        load_experiment(path)
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file"):
        load_experiment(tmp_path / "gone.toml")


@pytest.mark.parametrize("preset", preset_names())
def test_resolved_file_reads_back_to_the_same_experiment(preset: str, tmp_path: Path) -> None:
    first = experiment(model={"preset": preset})
    path = tmp_path / "run.toml"
    path.write_text(first.to_toml())
    again = load_experiment(path)
    assert again == first
    assert again.content_hash == first.content_hash


def test_hash_follows_training_and_nothing_else() -> None:
    base = experiment()
    assert experiment(name="x", energy={"pue": 1.5}).content_hash == base.content_hash
    assert experiment(train=TRAIN | {"seed": 1}).content_hash != base.content_hash


def test_a_model_file_is_as_good_as_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[model]\npreset = "Tiny"\nnum_layers = 3\n')
    assert load_model(str(path)) == load_model("tiny").model_copy(update={"num_layers": 3})
    path.write_text("[train]\n")
    with pytest.raises(ConfigError, match=r"no \[model\] table"):
        load_model(str(path))


def test_schema_describes_every_key_and_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    assert CliRunner().invoke(app, ["schema", "-o", str(path)]).exit_code == 0
    schema = json.loads(path.read_text())
    assert schema["properties"].keys() == Experiment.model_fields.keys()
    top_k = schema["$defs"]["MoeConfig"]["properties"]["top_k"]
    assert top_k["description"] == "Experts that see one token."
    assert schema["$defs"]["MoeConfig"]["additionalProperties"] is False
    assert json.loads(CliRunner().invoke(app, ["schema"]).stdout) == schema
    assert [entry.name for entry in tmp_path.iterdir()] == ["schema.json"]


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        ({"preset": "tiny"}, True),
        ({"preset": "tiny", "moe": {"top_k": 1, "normalize_top_k": False}}, True),
        (load_model("deepseek-v3").model_dump(mode="json", exclude_none=True), True),
        ({"num_layers": 2}, False),
        ({"preset": "tiny", "num_layer": 2}, False),
        ({"preset": "tiny", "moe": {"top_k": 0}}, False),
    ],
)
def test_schema_accepts_files_as_they_are_written(model: dict[str, Any], fits: bool) -> None:
    validator = Draft202012Validator(experiment_schema())
    assert validator.is_valid({"model": model, "train": TRAIN}) is fits


def test_schema_that_cannot_be_written_is_the_users_fault(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "schema.json"
    with pytest.raises(ConfigError, match="No such file or directory"):
        CliRunner().invoke(app, ["schema", "-o", str(target)], catch_exceptions=False)


@pytest.mark.parametrize(
    "path",
    sorted(path for room in SHIPPED for path in (ROOT / room).glob("**/*.toml")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_shipped_experiment_validates(path: Path) -> None:
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    if "train" in values and "model" in values:
        load_experiment(path)
        assert Draft202012Validator(experiment_schema()).is_valid(values)
    elif "model" in values:
        load_model(str(path))


FLOATS = [
    ("train", "learning_rate"),
    ("train", "clip_grad"),
    ("train", "spike_factor"),
    ("model", "norm_epsilon"),
    ("energy", "pue"),
    ("energy", "price_per_kwh"),
    ("parallel", "timeout_s"),
]


@pytest.mark.parametrize("value", ["inf", "nan", "-inf", "1e999"])
@pytest.mark.parametrize(("section", "key"), FLOATS)
def test_no_number_is_infinite(tmp_path: Path, section: str, key: str, value: str) -> None:
    file = tmp_path / "e.toml"
    file.write_text(tomli_w.dumps({"model": {"preset": "tiny"}, "train": TRAIN}))
    with pytest.raises(ConfigError, match=rf"{section}\.{key} = .*finite"):
        load_experiment(file, [f"{section}.{key}={value}"])
    with pytest.raises(ConfigError, match=r"train\.learning_rate = nan"):
        experiment(train=TRAIN | {"learning_rate": float("nan")})


def test_every_number_of_the_schema_is_finite() -> None:
    """JSON has no other; this finds a class that does not stand on the strict base."""
    for section in Experiment.model_fields.values():
        for part in (section.annotation, *getattr(section.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                assert part.model_config["allow_inf_nan"] is False, part


NUMBERS = [
    *("model.num_layers", "model.moe.top_k", "model.moe.aux_loss_coefficient", "model.rope.theta"),
    *("data.seed", "data.max_epochs", "data.changes.0.step", "data.weights.0"),
    *("parallel.tp", "parallel.stage_layers.0", "parallel.timeout_s", "precision.fp8_keep_first"),
    *("train.steps", "train.keep_every", "energy.pue", "slurm.nodes"),
]


def _nested(keys: list[str], value: bool) -> Any:
    if not keys:
        return value
    inner = _nested(keys[1:], value)
    return [inner] if keys[0] == "0" else {keys[0]: inner}


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number(key: str, value: bool) -> None:
    section, *keys = key.split(".")
    base: dict[str, Any] = {"model": {"preset": "tiny"}, "train": TRAIN}
    with pytest.raises(ConfigError, match=rf"{key} is true or false: write a number"):
        experiment(**{section: base.get(section, {}) | _nested(keys, value)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.steps = 1" + "0" * 400, "train.steps is an integer of more than 64 bits"),
        ("train.steps = 1" + "0" * 5000, "an integer of thousands of digits in line 1"),
        ("train.steps = 9223372036854775807", "train.steps = 9223372036854775807: input should be"),
        ("data.prefetch_steps = 1000000000", "data.prefetch_steps = 1000000000: input should be"),
        ("a = " + "[" * 20_000, "nested deeper than 64 levels"),
        (".".join("a" * 20_000) + " = 1", "nested deeper than 64 levels"),
        ('"a\\nb" = 1', r"unknown key a\nb"),
        ('name = "' + "n" * 999 + '"', "name = 'nnn"),
        ("parallel.tp = [2]", "parallel.tp = [2]: input should be a valid integer"),
        ("parallel.tp = inf", "parallel.tp = inf: "),
        ("train.init = 3\nmodel.num_heads = 4", "model.num_layers is missing (and"),
        ('data.store = "a\\u0000b"', "data.store is text with a NUL character"),
    ],
)
def test_values_out_of_bounds_are_refused_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "e.toml"
    preset = "" if "model" in text else 'model.preset = "tiny"'
    file.write_text(f"{text}\n{preset}\n")
    with pytest.raises(InputError) as refused:
        load_experiment(file, [f"train.{k}={v}" for k, v in TRAIN.items() if k not in text])
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1 and len(str(refused.value)) < 600


def test_an_experiment_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "e.toml")
    (tmp_path / "experiment.toml").symlink_to("e.toml")
    for path, follow_link, message in (
        (tmp_path / "e.toml", True, "not a regular file"),
        (tmp_path / "experiment.toml", True, "not a regular file"),
        (tmp_path / "experiment.toml", False, "a symbolic link"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_experiment(path, follow_link=follow_link)


@given(st.data())
def test_any_value_of_an_experiment_is_taken_or_refused(data: st.DataObject) -> None:
    values = experiment(name="e").model_dump(mode="json", exclude_none=True)
    changed = data.draw(mutations(values))
    if not isinstance(changed, dict):
        return
    try:
        make_experiment(changed)
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 600, str(error)
