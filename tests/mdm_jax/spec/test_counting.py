import dataclasses

import pytest

from isoflop.ladder import SMDM
from mdm_jax.spec import (
    DataSpec,
    Family,
    FlopConvention,
    LevelSampler,
    ModelSpec,
    ObjectiveSpec,
    OptimSpec,
    RunSpec,
    ScheduleSpec,
    TokenizerKind,
    TokenizerSpec,
    Variant,
    pair,
)
from mdm_jax.spec.counting import (
    chinchilla_forward_flops,
    count_parameters,
    forward_flops,
    scored_positions,
    step_flops,
    train_flops,
)

# Non-embedding parameters of SMDM's ladder, as published.
PUBLISHED_N = {
    "6": 6_294_784,
    "19": 18_880_896,
    "34": 33_563_136,
    "48": 47_786_688,
    "66": 65_549_440,
    "75": 75_387_520,
    "85": 85_214_080,
    "113": 113_265_408,
    "142": 141_581_568,
    "170": 169_897_728,
    "180": 179_856_768,
    "206": 205_550_464,
    "231": 231_244_160,
    "268": 268_469_248,
    "302": 302_027_776,
    "336": 335_586_304,
    "472": 471_906_560,
    "551": 550_557_440,
    "571": 571_001_728,
    "629": 629_208_320,
    "666": 666_168_448,
    "717": 717_285_888,
    "761": 761_335_168,
    "831": 830_541_312,
    "944": 943_796_736,
    "1028": 1_027_677_952,
    "1233": 1_233_213_184,
    "1476": 1_476_487_168,
    "1678": 1_677_826_048,
    "2121": 2_121_393_280,
}

# Two layers of width 4, ffn 6, vocabulary 5, rows of 3 tokens, batch 2: small enough to count by hand.
SMALL = RunSpec(
    model=ModelSpec(n_layers=2, d_model=4, n_heads=2, d_ffn=6, vocab_size=5),
    data=DataSpec(tokenizer=TokenizerSpec(TokenizerKind.SENTENCEPIECE, 5), seq_len=3),
    optim=OptimSpec(global_batch=2),
    schedule=ScheduleSpec(steps=10, warmup_steps=0),
)
DENSE = 2 * (4 * 16 + 3 * 24)  # weights of q, k, v, out and of the three SwiGLU matrices, in two layers


@pytest.mark.parametrize("name", PUBLISHED_N)
def test_ladder_has_the_published_sizes(name: str) -> None:
    model = SMDM[name].model(ModelSpec())
    assert count_parameters(model).non_embedding == PUBLISHED_N[name]


def test_ladder_is_the_published_one() -> None:
    assert list(SMDM) == list(PUBLISHED_N)


def test_parameters_by_hand() -> None:
    count = count_parameters(SMALL.model)
    norms = 2 * 2 * 4 + 4
    assert (count.non_embedding, count.embedding, count.head) == (DENSE + norms, 6 * 4, 5 * 4)
    assert count.total == DENSE + norms + 44


def test_exact_flops_by_hand() -> None:
    # 2 sequences of 3 tokens. MDM: 2 * 2 layers * 4 channels on 3 x 3 pairs; the head on 2 * (3 + 1) / 2 = 4 positions.
    mdm = 2 * (DENSE * 6 + 2 * (2 * 9 * 4) * 2 + 4 * 5 * 4)
    assert forward_flops(SMALL.model, SMALL.objective, 2, 3) == mdm
    # ARM: 3 * 4 / 2 = 6 pairs, and the head on all 6 positions.
    arm = pair(SMALL, Family.ARM)
    assert forward_flops(arm.model, arm.objective, 2, 3) == 2 * (DENSE * 6 + 2 * (2 * 6 * 4) * 2 + 6 * 5 * 4)
    full = forward_flops(arm.model, arm.objective, 2, 3, full_attention=True)
    assert full == 2 * (DENSE * 6 + 2 * (2 * 9 * 4) * 2 + 6 * 5 * 4)
    assert train_flops(SMALL, FlopConvention.EXACT) == 10 * 3 * mdm


def test_6nd_and_head_by_hand() -> None:
    tokens = 10 * 2 * 3
    assert SMALL.train_tokens == tokens
    assert train_flops(SMALL, FlopConvention.SMDM_6ND) == 6 * (DENSE + 20) * tokens
    assert train_flops(SMALL, FlopConvention.WITH_HEAD) == 6 * (DENSE + 20 + 20) * tokens


def test_chinchilla_flops_by_hand() -> None:
    # One sequence of L = 3 tokens, d = 4, H = 2, V = 5, ffn 6, as listed in Hoffmann et al. 2022, Appendix F.
    embedding = 2 * 3 * 5 * 4  # 120
    qkv = 2 * 3 * 3 * 4 * 4  # 288
    query_key, softmax, reductions = 2 * 9 * 4, 3 * 2 * 9, 2 * 9 * 4  # 72, 54, 72
    out = 2 * 3 * 4 * 4  # 96
    dense = 2 * 3 * (4 * 6 * 3)  # 432 with SwiGLU's three matrices
    logits = 2 * 3 * 4 * 5  # 120
    forward = embedding + 2 * (qkv + query_key + softmax + reductions + out + dense) + logits
    assert forward == chinchilla_forward_flops(2, 4, 2, 6, 5, 3) == 2268
    assert train_flops(SMALL, FlopConvention.CHINCHILLA) == 10 * 2 * 3 * 2268
    assert train_flops(pair(SMALL, Family.ARM), FlopConvention.CHINCHILLA) == 10 * 2 * 3 * 2268


def test_flops_of_a_token_over_6_are_the_parameters_of_each_convention() -> None:
    model, data = SMDM["170"].model(ModelSpec(vocab_size=32000)), TokenizerSpec(TokenizerKind.SENTENCEPIECE, 32000)
    spec = RunSpec(model=model, data=DataSpec(tokenizer=data, seq_len=2048))
    tokens = spec.optim.global_batch * spec.data.seq_len
    n = {convention: step_flops(spec, convention) / (6 * tokens) for convention in FlopConvention}
    assert n[FlopConvention.SMDM_6ND] == PUBLISHED_N["170"]
    assert n[FlopConvention.WITH_HEAD] == PUBLISHED_N["170"] + 768 * 32000
    # attention adds 2 L d a layer and token to `exact`, the MDM's head (L+1)/2L of dV; norms are no matrix products
    attention, norms = 18 * 2 * 2048 * 768 * 2 * 3 / 6, (2 * 18 + 1) * 768
    exact = PUBLISHED_N["170"] - norms + attention + 768 * 32000 * 2049 / 4096
    assert n[FlopConvention.EXACT] == pytest.approx(exact, rel=1e-12)
    assert n[FlopConvention.CHINCHILLA] > n[FlopConvention.EXACT]


def test_scored_positions() -> None:
    assert scored_positions(ObjectiveSpec(), 16, 64) == 16 * 65 // 2
    assert scored_positions(ObjectiveSpec(Variant.NLL), 16, 64) == 16 * 64
    continuous = ObjectiveSpec(Variant.CONTINUOUS, LevelSampler.IID)
    assert scored_positions(continuous, 16, 64) == 16 * 64


@pytest.mark.parametrize("convention", FlopConvention)
@pytest.mark.parametrize("family", Family)
def test_flops_are_exact_integers_at_pod_size(family: Family, convention: FlopConvention) -> None:
    model = SMDM["2121"].model(ModelSpec(vocab_size=32000))
    data = DataSpec(tokenizer=TokenizerSpec(TokenizerKind.SENTENCEPIECE, 32000), seq_len=2048)
    schedule = ScheduleSpec(steps=1_000_003, warmup_steps=0)
    spec = pair(RunSpec(model=model, data=data, optim=OptimSpec(global_batch=256), schedule=schedule), family)
    total = train_flops(spec, convention)
    assert isinstance(total, int)
    assert total == 1_000_003 * step_flops(spec, convention) > 2**62
    double = dataclasses.replace(spec, optim=OptimSpec(global_batch=512))
    assert train_flops(double, convention) == 2 * total
