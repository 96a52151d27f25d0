"""Preflight without a TPU compiler: reading programs, bounds, and the search."""

import dataclasses

import pytest
from preflight_runs import run_of

from isoflop.preflight import __main__ as preflight
from isoflop.preflight.collectives import by_kind, read_collectives
from isoflop.preflight.compile import Compiled, Setting
from isoflop.preflight.roofline import roofline
from isoflop.preflight.search import CHEAPEST_FIRST, microbatch_choices, mixes, nearest, search
from isoflop.preflight.topology import CHIPS, find_mesh, find_topology
from isoflop.preflight.verdict import advice, examine
from mdm_jax.spec import FlopConvention, Remat
from mdm_jax.spec.counting import forward_flops, step_flops
from mdm_jax.train.ahead import needed_bytes

GIB = 2**30

# A program

LOOPS = """\
HloModule step
%fused (p.0: bf16[8,64]) -> bf16[128,64] {
  ROOT %all-gather.2 = bf16[128,64]{1,0:T(8,128)(2,1)} all-gather(%p.0), channel_id=3, replica_groups=mesh['axis_0'=16,'axis_1'=1] {'axis_0'}, dimensions={0}
}

%body (arg: (s32[], bf16[8,64])) -> (s32[], bf16[8,64]) {
  %arg = (s32[], bf16[8,64]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %all-gather.1 = bf16[128,64]{1,0:T(8,128)(2,1)} all-gather(%w), channel_id=3, replica_groups=mesh['axis_0'=16,'axis_1'=1] {'axis_0'}, dimensions={0}
  %x = bf16[128,64] fusion(%w), kind=kCustom, calls=%fused
  %all-reduce.1 = (f32[16]{0}, /*index=1*/bf16[2,3]{1,0}) all-reduce(%a, %b), channel_id=4, replica_groups=[8,2]<=[16], to_apply=%sum
  ROOT %out = (s32[], bf16[8,64]) tuple(%next, %w)
}

%condition (arg.1: (s32[], bf16[8,64])) -> pred[] {
  %limit = s32[] constant(20), metadata={op_name="x"}
  %arg.1 = (s32[], bf16[8,64]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%arg.1), index=0
  ROOT %less = pred[] compare(%j, %limit), direction=LT
}

%sum (a.0: f32[], b.0: f32[]) -> f32[] {
  ROOT %added = f32[] add(%a.0, %b.0)
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %w0 = (s32[], bf16[8,64]{1,0:T(8,128)(2,1)}) while(%start), condition=%condition, body=%body, metadata={op_name="y"}
  %rs = f32[4]{0} reduce-scatter(%p), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%sum
  %alone = f32[4]{0} all-reduce(%p), channel_id=9, replica_groups={{0},{1}}, to_apply=%sum
  %cp = (f32[4]{0}, f32[4]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%p), channel_id=7, source_target_pairs={{0,1},{1,0}}
  %ag = ((f32[4]{0}), (f32[16]{0})) all-gather-start(%p), channel_id=8, replica_groups=[4,4]<=[16], dimensions={0}
  ROOT %done = f32[4]{0} collective-permute-done(%cp)
}
"""  # noqa: E501 - the compiler's lines


def test_collectives_count_as_often_as_a_step_runs_them():
    found = {one.kind + str(one.group): one for one in read_collectives(LOOPS, 16)}
    gathered, reduced = found["all-gather16"], found["all-reduce2"]
    assert (gathered.times, gathered.whole_bytes) == (10, 128 * 64 * 2)  # 20 layers, two a trip; one channel, once
    assert gathered.sent_bytes == pytest.approx(10 * 128 * 64 * 2 * 15 / 16)
    assert (reduced.times, reduced.whole_bytes) == (10, 16 * 4 + 6 * 2)
    assert reduced.sent_bytes == pytest.approx(10 * 76 * 2 / 2)
    assert found["reduce-scatter4"].whole_bytes == 64
    assert found["collective-permute2"].sent_bytes == 16
    assert found["all-gather4"].whole_bytes == 64
    assert "all-reduce1" not in found
    assert by_kind(list(found.values()))["all-gather"]["times"] == 11


def test_a_text_that_is_no_program_has_no_collectives():
    assert read_collectives("", 4) == []
    assert read_collectives("ENTRY %main () -> f32[] {\n  %w = f32[] while(%x)\n", 4) == []


# Topologies


def test_slices_have_their_chips():
    for chip in CHIPS.values():
        assert chip.flops_per_second > 1e14
        devices = [find_topology(f"{chip.name}:{shape}").devices for shape in chip.shapes]
        assert devices == sorted(devices)
    largest = find_topology("v5e:16x16")
    assert (largest.devices, largest.larger()) == (256, None)
    larger = find_topology(" V5P:2x2x4 ").larger()
    assert larger is not None
    assert larger.name == "v5p:2x4x4"


@pytest.mark.parametrize("name", ["v5e", "v5e:4x5", "v5p:4x4", "v9:2x2", "", "v5e:4x4x", "../v5e:4x4"])
def test_an_unknown_topology_lists_those_known(name):
    with pytest.raises(ValueError, match=r"must be one of v4:\{2x2x1.*v5e:\{1x1,2x2.*v6e:"):
        find_topology(name)


@pytest.mark.parametrize("text", ["16", "16x", "0x4", "4x-1", "axb", "2x16x1x1", "2x0x16x1"])
def test_a_mesh_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="DATAxMODEL"):
        find_mesh(text)


def test_a_mesh_names_its_replicas_first():
    assert (find_mesh("16x1"), find_mesh(" 2X8x4")) == ((1, 16, 1), (2, 8, 4))


def test_several_slices_hold_whole_replicas():
    two = find_topology("v5e:4x4", slices=2)
    assert (two.devices, two.name, two.mesh) == (32, "2 slices of v5e:4x4", "2x16x1")
    larger = two.larger()
    assert larger is not None
    assert (larger.devices, larger.slices) == (64, 2)
    run = preflight.on_mesh(run_of(), "2x16x1", two)
    assert run.hardware.devices == 32
    assert preflight.on_mesh(run, None, two) == run
    assert preflight.on_mesh(run_of(), "4x4x2", two).hardware.mesh == "4x4x2"  # two replicas in each slice
    assert microbatch_choices(run) == (1, 2, 4)
    refused = r"a multiple of 2 replicas, of the 32 devices of 2 slices of v5e:4x4: --mesh 2x16x1, or .*replica=2"
    for mesh in ("32x1", "2x8x1"):
        with pytest.raises(ValueError, match=refused):
            preflight.on_mesh(run_of(), mesh, two)
    with pytest.raises(ValueError, match="--slices = 0: must be from 1"):
        find_topology("v5e:4x4", slices=0)


# The roofline


def test_compute_bound_of_a_large_batch():
    run, chip = run_of(), find_topology("v5e:4x4").chip
    line = roofline(run, chip, sent_bytes=1e9)
    exact = step_flops(run, FlopConvention.EXACT) / 16 / 197e12
    assert line.compute == line.seconds == line.useful_seconds == pytest.approx(exact)
    assert (line.binds, line.mfu) == ("compute", 1)
    full = roofline(Setting(Remat.FULL, 1).of(run), chip, sent_bytes=1e9)
    trunk = forward_flops(dataclasses.replace(run.model, vocab_size=2), run.objective, 256, 2048)
    assert full.compute - line.compute == pytest.approx(trunk / 16 / 197e12, rel=1e-3)
    assert roofline(Setting(Remat.DOTS, 1).of(run), chip, sent_bytes=1e9).compute == line.compute
    assert 0.75 < full.mfu < 0.8
    odd = run_of(seq_len=2000)  # attention by einsum
    compute = [roofline(Setting(remat, 1).of(odd), chip, 0.0).compute for remat in CHEAPEST_FIRST]
    assert compute[0] < compute[1] == compute[2] < compute[3]


def test_offloading_is_bound_by_the_link_to_the_host():
    run, chip = run_of(batch=64), find_topology("v5e:4x4").chip
    line = roofline(Setting(Remat.OFFLOAD, 1).of(run), chip, sent_bytes=1e9)
    widths = 14  # of d_model: 3 for qkv, 1 each for attention, out and down, 4 each for gate and up
    kept = 4 * 2048 * 20 * widths * 1792 * 2  # rows, tokens, layers, channels, bytes of a number
    assert line.binds == "host"
    assert line.seconds == pytest.approx(2 * kept / 16e9)
    assert roofline(run, chip, sent_bytes=1e9).host == 0


def test_interconnect_and_memory_bind_where_they_are_longest():
    run, chip = run_of(batch=32), find_topology("v5e:4x4").chip
    line = roofline(run, chip, sent_bytes=1e12)
    assert (line.binds, line.seconds) == ("interconnect", 5.0)
    small = roofline(run_of("6", batch=32, seq_len=128), chip, 0.0)
    assert small.binds == "memory"
    assert small.mfu < 1


def test_replicas_share_the_rows_and_not_the_weights():
    chip = find_topology("v5e:4x4").chip
    one, two = run_of("6", batch=64), run_of("6", batch=64, mesh_replica=2)
    assert roofline(two, chip, 0.0).compute == roofline(one, chip, 0.0).compute / 2
    fewer_rows = roofline(run_of("6", batch=32), chip, 0.0).memory
    assert roofline(two, chip, 0.0).memory == pytest.approx(fewer_rows)


# The search


def imitated_compiler(activations_gib, state_gib=2.0, log=None):
    """Memory as of a program: a state, and activations that fall with microbatches and recomputation."""
    share = {Remat.NONE: 1.0, Remat.DOTS: 0.5, Remat.OFFLOAD: 0.2, Remat.FULL: 0.1}

    def compiled(setting):
        if log is not None:
            log.append(setting)
        first = setting.remat_layers / 20 if setting.remat_layers else 1.0  # the 1028M model has 20 layers
        kept = first * share[setting.remat] + (1 - first) * share[setting.remat_rest]
        gib = state_gib + activations_gib * kept / setting.microbatches
        refused = "RESOURCE_EXHAUSTED" if gib > 15.75 else ""
        return Compiled(setting, "imitated", 1.0, gib * GIB, {}, {}, refused)

    return compiled


@pytest.mark.parametrize("activations", [1, 20, 50, 100, 200, 1000])
def test_the_search_finds_what_trying_everything_finds(activations):
    run, log = run_of(batch=512), []
    compiled, limit = imitated_compiler(activations, log=log), 15.75 * GIB
    assert microbatch_choices(run) == (1, 2, 4, 8, 16)
    found = [answer.setting for answer in search(run, compiled, limit)]
    expected, fewest = [], 17
    for remat in CHEAPEST_FIRST:
        fitting = [m for m in (1, 2, 4, 8, 16) if imitated_compiler(activations)(Setting(remat, m)).fits(limit)]
        if fitting and fitting[0] < fewest:
            fewest = fitting[0]
            expected.append(Setting(remat, fewest))
    assert found == expected
    assert len(log) == len(set(log)) <= 9


@pytest.mark.parametrize(("activations", "share"), [(20, 0.5), (20, 1.0), (26, 0.9), (150, 0.5), (1000, 0.5)])
def test_a_mix_has_the_fewest_layers_of_the_policy_that_fits(activations, share):
    """The interpolation finds what trying every number of layers finds, with one compilation."""
    run, log, limit = run_of(batch=512), [], 15.75 * GIB
    compiled = imitated_compiler(activations, log=log)
    found = search(run, compiled, limit)
    del log[:]
    actual = [answer.setting for answer in mixes(run, compiled, limit, found)]
    assert sum(setting.remat_layers > 0 for setting in log) <= 2
    expected = []
    for answer in found:
        rest = {Remat.DOTS: Remat.NONE, Remat.FULL: Remat.DOTS}.get(answer.setting.remat)
        if rest is not None:
            every = [Setting(answer.setting.remat, answer.setting.microbatches, k, rest) for k in range(1, 20)]
            expected += [setting for setting in every if imitated_compiler(activations)(setting).fits(limit)][:1]
    assert actual == expected


def test_a_mix_that_misses_gets_one_further_layers():
    """A layer that is computed again may need a constant more, which the line between the policies does not show."""
    run, limit = run_of(batch=512), 15.75 * GIB
    linear, log = imitated_compiler(20), []
    found = search(run, linear, limit)

    def tried(more_gib):
        def compiled(setting):
            log.append(setting.remat_layers)
            answer = linear(setting)
            needed = answer.hbm_bytes + more_gib * GIB * (setting.remat_layers > 0)
            return dataclasses.replace(answer, hbm_bytes=needed)

        log.clear()
        return [answer.setting.remat_layers for answer in mixes(run, compiled, limit, found)], log

    assert tried(0) == ([13], [0, 13])
    assert tried(1) == ([15], [0, 13, 15])
    assert tried(3) == ([], [0, 13, 16])
    unknown = lambda setting: dataclasses.replace(linear(setting), hbm_bytes=0.0)  # noqa: E731
    assert mixes(run, unknown, limit, search(run, linear, limit)) == []


def test_a_mix_has_its_share_of_both_policies():
    chip, odd = find_topology("v5e:4x4").chip, run_of(seq_len=2000)

    def line(*setting):
        bound = roofline(Setting(*setting).of(odd), chip, 0.0)
        return bound.compute, bound.memory, bound.host

    for first, rest in ((Remat.FULL, Remat.NONE), (Remat.FULL, Remat.DOTS), (Remat.OFFLOAD, Remat.DOTS)):
        expected = [(x + 3 * y) / 4 for x, y in zip(line(first, 1), line(rest, 1), strict=True)]
        assert line(first, 1, 5, rest) == pytest.approx(expected)


def test_a_planned_mix_is_the_setting_that_is_examined():
    run = run_of(remat=Remat.FULL, remat_layers=6, remat_rest=Remat.DOTS)
    setting = Setting.planned(run)
    assert setting.of(run) == run
    assert setting.of(run_of()) == run
    words = "hardware.remat=full hardware.remat_layers=6 hardware.remat_rest=dots hardware.microbatches=1"
    assert str(setting) == words
    verdict = examine((run,), find_topology("v5e:4x4"), imitated_compiler(50), quick=True)
    assert verdict.planned.setting == setting


def test_a_run_that_does_not_fit_is_told_the_nearest_setting_that_does():
    topology = find_topology("v5e:4x4")
    verdict = examine((run_of(),), topology, imitated_compiler(54))
    assert verdict.fits is False
    assert verdict.nearest is not None
    assert verdict.nearest.setting == Setting(Remat.NONE, 4)
    line = advice(verdict, topology)
    assert "needs 56.00 GiB of 15.75 on v5e:4x4: take hardware.remat=none hardware.microbatches=4 (15.50 GiB)" in line


def test_the_nearest_setting_may_be_a_mix():
    topology = find_topology("v5e:4x4")
    verdict = examine((run_of(),), topology, imitated_compiler(20))
    line = advice(verdict, topology)
    assert (
        "take hardware.remat=dots hardware.remat_layers=13 hardware.remat_rest=none hardware.microbatches=1 (15" in line
    )


def test_no_setting_fits():
    topology = find_topology("v5e:4x4")
    verdict = examine((run_of("2121"),), topology, imitated_compiler(50, state_gib=16.0))
    assert (verdict.fits, verdict.best) == (False, None)
    assert "no setting fits: take a larger slice, such as --topology v5e:4x8 --mesh 32x1" in advice(verdict, topology)


def test_nearest_counts_policies_and_doublings():
    compiled = imitated_compiler(1)
    answers = [compiled(Setting(remat, m)) for remat, m in ((Remat.FULL, 1), (Remat.DOTS, 2), (Remat.NONE, 8))]
    best = nearest(Setting(Remat.NONE, 4), answers, 20)
    assert best is not None
    assert best.setting == Setting(Remat.NONE, 8)
    mix = compiled(Setting(Remat.DOTS, 4, 19, Remat.NONE))
    assert nearest(Setting(Remat.NONE, 4), [*answers, mix], 20) == mix


def test_a_compiler_that_crashes_is_an_answer_and_no_verdict():
    topology = find_topology("v5e:4x4")
    verdict = examine(
        (run_of(),), topology, lambda setting: Compiled(setting, failed="the compiler ended with SIGSEGV")
    )
    assert verdict.fits is None
    assert verdict.tried == (verdict.planned,)
    assert "SIGSEGV" in advice(verdict, topology)


@pytest.mark.parametrize(
    ("line", "gib"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total (192.50G) exceeds available HBM (15.75G).", 192.5),
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 30.98G of 15.75G hbm.", 30.98),
        ("RESOURCE_EXHAUSTED: out of memory", 0),
    ],
)
def test_what_the_compiler_says_it_needs(line, gib):
    assert needed_bytes(line) == gib * GIB
