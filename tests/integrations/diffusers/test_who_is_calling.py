"""The hooks act whoever calls the model: what is not the sampler loop they serve computes, and leaves that loop alone."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import random
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_module
from diffusers.hooks import apply_group_offloading
from tiny_pipelines import PIPELINES, beside, sample
from tiny_transformers import arguments as forward_arguments
from tiny_transformers import build

from easyteacache.errors import AttachError, EasyTeaCacheWarning
from easyteacache.integrations.diffusers.calling_thread import CallingThread
from easyteacache.integrations.diffusers.driver import Driver
from easyteacache.runtime.session import StepDriver

WAN = "WanTransformer3DModel"


def forward(model, step=0, branch="cond", **changes):
    return model(**{**forward_arguments(WAN, step, branch), **changes}, return_dict=False)[0]


# Gradients -----------------------------------------------------------------------------------------------------------


def gradients_of(model, step):
    model.zero_grad()
    forward(model, step).square().sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("training", [True, False], ids=["trains", "only its parameters do"])
def test_forwards_with_gradients_are_computed_and_have_every_gradient(make_cache, training):
    model = build(WAN).train(training).requires_grad_(True)
    expected = [gradients_of(model, step) for step in range(3)]
    with make_cache(schedule=(0,)).attached(model) as cache:
        with pytest.warns(EasyTeaCacheWarning, match="gradients"):
            found = [gradients_of(model, step) for step in range(3)]
        assert (cache.statistics(), cache.nbytes) == ({}, 0)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_gradient_by_the_latent_passes_through_every_block(make_cache):
    model = build(WAN).requires_grad_(False)

    def gradient(step):
        latent = forward_arguments(WAN, step, "cond")["hidden_states"].requires_grad_(True)
        return torch.autograd.grad(forward(model, step, hidden_states=latent).sum(), latent)[0]

    expected = [gradient(step) for step in range(3)]
    with make_cache(schedule=(0,)).attached(model), pytest.warns(EasyTeaCacheWarning, match="gradients"):
        assert all(torch.equal(gradient(step), expected[step]) for step in range(3))


def test_a_training_step_between_sampling_steps_leaves_the_run_alone(make_cache):
    model = build(WAN).requires_grad_(True)

    def sampled(train_at):
        outputs = []
        for step in range(5):
            if step == train_at:
                model.train()
                forward(model, 2, "uncond").sum().backward()
                model.eval()
            with torch.no_grad():
                outputs.append(forward(model, step))
        return torch.stack(outputs)

    with make_cache(schedule=(0, 3)).attached(model) as cache:
        expected = sampled(None)
        with pytest.warns(EasyTeaCacheWarning, match="gradients"):
            assert torch.equal(sampled(3), expected)
        assert cache.statistics()["default"].pattern == "█··█·"


def test_frozen_models_that_sample_without_no_grad_are_served(make_cache):
    model = build(WAN).requires_grad_(False)
    with make_cache(schedule=(0,)).attached(model) as cache:
        for step in range(3):
            forward(model, step)
        assert cache.statistics()["default"].pattern == "█··"


# Conditioning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wan", "flux", "hunyuan", "qwen"])
@pytest.mark.parametrize("in_place", [False, True], ids=["replaced", "written in place"])
def test_the_first_step_with_another_prompt_computes(name, in_place, make_cache):
    pipe = PIPELINES[name]()
    unguided = {"wan": {"guidance_scale": 1.0}}.get(name, {"true_cfg_scale": 1.0})

    def change(pipe, step, timestep, kwargs):
        embeds = kwargs["prompt_embeds"]
        if step == 2:
            other = embeds.flip(1) + 1.0
            kwargs["prompt_embeds"] = embeds.copy_(other) if in_place else other
        return kwargs

    def run():
        options = {"callback_on_step_end": change, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
        return sample(pipe, name, steps=6, **unguided, **options)

    with make_cache(schedule=(0, 1, 3)).attached(pipe) as due:
        expected = run()
        assert {one.pattern for one in due.statistics().values()} == {"██·█··"}
    with make_cache(schedule=(0, 1)).attached(pipe) as cache:
        assert torch.equal(run(), expected)
        assert {one.pattern for one in cache.statistics().values()} == {"██·█··"}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_conditioning_written_in_place_is_noticed(mode, named, make_cache):
    model = build(WAN)
    with make_cache(schedule=(0,)).attached(model) as cache, mode():
        text = forward_arguments(WAN, 0, "cond")["encoder_hidden_states"].clone()
        for step in range(5):
            if step == 3:
                text.add_(1.0)
            with model.cache_context("cond") if named else contextlib.nullcontext():
                forward(model, step, encoder_hidden_states=text)
        patterns = [one.pattern for one in cache.statistics().values()]
    assert patterns == (["█··█·"] if named else ["█··", "█·"])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_same_conditioning_written_again_or_anew_is_reused(mode, make_cache):
    model = build(WAN)
    with make_cache(schedule=(0,)).attached(model) as cache, mode():
        text = forward_arguments(WAN, 0, "cond")["encoder_hidden_states"].clone()
        for step in range(5):
            text = text.copy_(text.clone()) if step % 2 else text.clone()
            with model.cache_context("cond"):
                forward(model, step, encoder_hidden_states=text)
        assert cache.statistics()["cond"].pattern == "█····"


@torch.no_grad()
def test_other_pooled_text_alone_is_noticed(make_cache):
    kind = "HunyuanVideoTransformer3DModel"
    model = build(kind)
    with make_cache(schedule=(0,)).attached(model) as cache:
        for step in range(4):
            given = forward_arguments(kind, step, "cond")
            if step >= 2:
                given["pooled_projections"] = given["pooled_projections"] + 1.0
            with model.cache_context("cond"):
                model(**given)
        assert cache.statistics()["cond"].pattern == "█·█·"


# Copies --------------------------------------------------------------------------------------------------------------


def reloaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": reloaded,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("signal", ["hidden_states", "timestep_embedding", "timestep_projection"])
@torch.no_grad()
def test_a_copy_of_an_attached_transformer_is_a_model_of_its_own(copied, signal, make_cache):
    model = build(WAN)
    plain = [forward(model, step) for step in range(4)]
    with make_cache(signal=signal, threshold=1e9).attached(model) as cache:
        reused = [forward(model, step) for step in range(2)]
        twin = copied(model)
        assert all(torch.equal(forward(twin, step), plain[step]) for step in range(4))
        # The run that goes on has not seen the copy's forwards.
        reused += [forward(model, step) for step in range(2, 4)]
        assert cache.statistics()["default"].pattern == "█···"
        assert not torch.equal(reused[3], plain[3])
        for parameter in twin.parameters():
            parameter.zero_()
        assert not forward(twin, 0).any()
        with make_cache(schedule=(0,)).attached(copied(model)) as other:
            assert other.session is not cache.session
    assert all(torch.equal(forward(model, step), plain[step]) for step in range(4))


@torch.no_grad()
def test_a_copy_of_one_block_runs_its_own_weights(make_cache):
    model = build(WAN)
    with make_cache(schedule=(0,)).attached(model):
        block = copy.deepcopy(model.blocks[0])
    assert not hasattr(block, "_diffusers_hook")
    assert "forward" not in vars(block)
    assert not any("__reduce_ex__" in vars(module) for module in model.modules())


def counted(module):
    """A hook of somebody else's that torch keeps on a module, and its calls."""
    calls = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


def grouped(model):
    apply_group_offloading(
        model,
        onload_device=torch.device("cpu"),
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
    )


def wrapped(model):
    inner = model.blocks[1].forward
    model.blocks[1].forward = lambda *args, **kwargs: inner(*args, **kwargs)


BESIDE = {
    "a hook of torch": lambda model: counted(model.blocks[0]),
    "accelerate": lambda model: cpu_offload(model, execution_device="cpu"),
    "compiled blocks": lambda model: model.compile_repeated_blocks(backend="eager"),
}
REFUSED = {
    "group offloading": (grouped, "group_offloading"),
    "layerwise casting": (
        lambda model: model.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float32),
        "layerwise_casting",
    ),
}


@pytest.mark.parametrize("put", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("order", ["before", "after"])
@torch.no_grad()
def test_a_copy_keeps_what_others_put_beside_the_cache_and_runs_its_own_weights(put, order, make_cache):
    model = build(WAN)
    plain = [forward(model, step) for step in range(3)]
    if order == "before":
        put(model)
    with make_cache(schedule=(0,)).attached(model) as cache:
        if order == "after":
            put(model)
        forward(model, 0)
        twin = copy.deepcopy(model)
        for parameter in model.blocks.parameters():
            if parameter.device.type != "meta":
                parameter.zero_()
        assert all(torch.equal(forward(twin, step), plain[step]) for step in range(3))
        assert cache.statistics()["default"].pattern == "█"


@pytest.mark.parametrize(("put", "named"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("order", ["before", "after"])
@torch.no_grad()
def test_a_copy_that_would_call_the_original_is_refused_with_the_hook_s_name(put, named, order, make_cache):
    model = build(WAN)
    if order == "before":
        put(model)
    with make_cache(schedule=(0,)).attached(model):
        if order == "after":
            put(model)
        with pytest.raises(AttachError, match=rf"other hooks of diffusers \({named}\)"):
            copy.deepcopy(model)


@torch.no_grad()
def test_a_copy_of_a_block_whose_forward_was_wrapped_after_attach_is_refused(make_cache):
    model = build(WAN)
    with make_cache(schedule=(0,)).attached(model):
        wrapped(model)
        with pytest.raises(AttachError, match="replaced after an EasyTeaCache was attached"):
            copy.deepcopy(model)


# Wrapped since -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_model_that_was_offloaded_after_attach_works_after_detach(make_cache):
    model = build(WAN)
    plain = [forward(model, step) for step in range(4)]
    cache = make_cache(schedule=(0, 2)).attach(model)
    reused = [forward(model, step) for step in range(4)]
    cpu_offload(model, execution_device="cpu")
    assert all(torch.equal(forward(model, step), reused[step]) for step in range(4))
    cache.detach()
    assert all(torch.equal(forward(model, step), plain[step]) for step in range(4))
    with make_cache(schedule=(0, 2)).attached(model):
        assert all(torch.equal(forward(model, step), reused[step]) for step in range(4))
    remove_hook_from_module(model, recurse=True)
    assert all(torch.equal(forward(model, step), plain[step]) for step in range(4))


@torch.no_grad()
def test_a_model_whose_offloading_was_taken_off_after_attach_works_after_detach(make_cache):
    model = build(WAN)
    plain = [forward(model, step) for step in range(4)]
    cpu_offload(model, execution_device="cpu")
    cache = make_cache(schedule=(0, 2)).attach(model)
    forward(model)
    remove_hook_from_module(model, recurse=True)
    cache.detach()
    assert all(torch.equal(forward(model, step), plain[step]) for step in range(4))


@torch.no_grad()
def test_a_forward_that_was_replaced_after_attach_stays_and_passes_through(make_cache):
    model = build(WAN)
    plain = [forward(model, step) for step in range(4)]
    cache, calls = make_cache(schedule=(0, 2)).attach(model), []
    block = model.blocks[1]
    inner = block.forward
    block.forward = lambda *args, **kwargs: (calls.append(None), inner(*args, **kwargs))[1]
    cache.detach()
    assert all(torch.equal(forward(model, step), plain[step]) for step in range(4))
    assert len(calls) == 4


# Adapters ------------------------------------------------------------------------------------------------------------


class Adapted(torch.nn.Linear):
    """A linear layer that adds rank-one products to its own, as far as layers of peft are read."""

    def __init__(self, layer, **weights):
        super().__init__(layer.in_features, layer.out_features)
        self.load_state_dict(layer.state_dict())
        self.scaling, self.active_adapters = dict(weights), list(weights)
        self.disable_adapters, self.merged_adapters = False, []

    def forward(self, x):
        weight = 0.0 if self.disable_adapters else sum(self.scaling[name] for name in self.active_adapters)
        return super().forward(x) + weight * x.sum(-1, keepdim=True)


def adapt(model, **weights):
    for block in model.blocks:
        block.attn1.to_q = Adapted(block.attn1.to_q, **weights)
    model.requires_grad_(False)
    return model


def layers_of(model):
    return [block.attn1.to_q for block in model.blocks]


SWITCHES = {
    "deactivated": lambda model: [layer.active_adapters.remove("style") for layer in layers_of(model)],
    "weighted": lambda model: [layer.scaling.update(style=0.2) for layer in layers_of(model)],
    "disabled": lambda model: [setattr(layer, "disable_adapters", True) for layer in layers_of(model)],
    "fused": lambda model: [layer.merged_adapters.append("style") for layer in layers_of(model)],
    "in one layer": lambda model: layers_of(model)[-1].scaling.update(style=0.2),
    "loaded": lambda model: (adapt(model, other=0.5), setattr(model, "peft_config", {"style": 0, "other": 0})),
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
@torch.no_grad()
def test_the_first_step_of_each_branch_under_another_adapter_computes(switch, make_cache):
    model = adapt(build(WAN), style=1.0)
    with make_cache(schedule=(0,)).attached(model) as cache:
        for step in range(6):
            if step == 3:
                switch(model)
            for branch in ("cond", "uncond"):
                with model.cache_context(branch):
                    forward(model, step, branch)
        assert {name: one.pattern for name, one in cache.statistics().items()} == {
            "cond": "█··█··",
            "uncond": "█··█··",
        }


@torch.no_grad()
def test_adapters_loaded_into_a_plain_model_in_the_middle_of_a_run_compute(make_cache):
    model = build(WAN)
    with make_cache(schedule=(0,)).attached(model) as cache:
        for step in range(4):
            if step == 2:
                adapt(model, style=1.0).peft_config = {"style": 0}
            forward(model, step)
        assert cache.statistics()["default"].pattern == "█·█·"


# Threads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wan", "flux", "chroma"])
def test_the_other_thread_computes_and_disturbs_nobody(name, make_cache):
    first = PIPELINES[name]()
    second, both = beside(first), threading.Barrier(2, timeout=60)
    plain = sample(second, name, seed=7)

    def in_step(pipe, step, timestep, kwargs):
        both.wait()
        return kwargs

    with make_cache(schedule=(0, 3)).attached(first) as cache:
        expected = sample(first, name, seed=3)

        def begin_first(pipe, step, timestep, kwargs):
            if step == 0:
                started.set()
            return in_step(pipe, step, timestep, kwargs)

        def other():
            started.wait(60)
            return sample(second, name, seed=7, callback_on_step_end=in_step)

        started = threading.Event()
        with warnings.catch_warnings(record=True) as told, ThreadPoolExecutor(2) as pool:
            warnings.simplefilter("always")
            futures = [pool.submit(other), pool.submit(sample, first, name, seed=3, callback_on_step_end=begin_first)]
            found = [future.result() for future in futures]
        assert torch.equal(found[0], plain)
        assert torch.equal(found[1], expected)
        assert [str(one.message) for one in told if "another thread" in str(one.message)]
        # The run is over: whoever comes next is served.
        with ThreadPoolExecutor(1) as pool:
            assert torch.equal(pool.submit(sample, first, name, seed=3).result(), expected)
        assert {one.pattern for one in cache.statistics().values()} == {"█··█··"}


@torch.no_grad()
def test_a_run_that_is_only_beginning_is_not_taken_over(make_cache, monkeypatch):
    model = build(WAN)
    plain = forward(model, 0, "uncond")
    inside: list[torch.Tensor] = []

    def elsewhere():
        with torch.no_grad():
            return forward(model, 0, "uncond")

    with make_cache(schedule=(0,)).attached(model) as cache, ThreadPoolExecutor(1) as pool:
        original = Driver._run_context

        def slow(driver):
            if not inside:
                inside.append(plain)
                inside.append(pool.submit(elsewhere).result())
            return original(driver)

        monkeypatch.setattr(Driver, "_run_context", slow)
        with pytest.warns(EasyTeaCacheWarning, match="another thread"):
            forward(model, 0)
        for step in range(1, 4):
            forward(model, step)
        assert torch.equal(inside[1], plain)
        assert {name: one.pattern for name, one in cache.statistics().items()} == {"default": "█···"}


def test_a_run_is_not_taken_over_while_its_last_step_is_kept(make_cache, monkeypatch):
    first = PIPELINES["wan"]()
    second = beside(first)
    plain = sample(second, "wan", seed=7)
    inside: list[torch.Tensor] = []
    with make_cache(schedule=(0, 3)).attached(first) as cache, ThreadPoolExecutor(1) as pool:
        expected, kept = sample(first, "wan", seed=3), cache.statistics()
        original, settled = StepDriver.settle, []

        def slow(steps):
            settled.append(steps)
            # Each of two branches has a last step.
            if len(settled) == 2:
                inside.append(pool.submit(sample, second, "wan", seed=7).result())
            return original(steps)

        monkeypatch.setattr(StepDriver, "settle", slow)
        with pytest.warns(EasyTeaCacheWarning, match="another thread"):
            found = sample(first, "wan", seed=3)
        assert len(settled) == 2
        assert torch.equal(inside[0], plain)
        assert torch.equal(found, expected)
        assert cache.statistics() == kept


@pytest.mark.parametrize("name", ["wan", "flux"])
def test_the_run_of_another_pipeline_goes_by_its_own_scheduler(name, make_cache):
    """Whatever the scheduler of the pipeline that the cache was attached to does meanwhile."""
    first = PIPELINES[name]()
    second = beside(first)
    plain = sample(first, name, seed=7)
    with make_cache(schedule=(0, 3)).attached(second) as cache:
        expected, kept = sample(second, name, seed=3), cache.statistics()
    meanwhile: list[torch.Tensor] = []

    with make_cache(schedule=(0, 3)).attached(first) as cache, ThreadPoolExecutor(1) as pool:

        def begin_another(pipe, step, timestep, kwargs):
            if step in (1, 3):
                meanwhile.append(pool.submit(sample, first, name, seed=7).result())
            return kwargs

        with pytest.warns(EasyTeaCacheWarning, match="another thread"):
            found = sample(second, name, seed=3, callback_on_step_end=begin_another)
        assert torch.equal(found, expected)
        assert cache.statistics() == kept
    assert len(meanwhile) == 2
    assert all(torch.equal(one, plain) for one in meanwhile)


def test_a_plan_of_one_step_count_is_looked_for_by_the_calling_pipeline_s_scheduler(make_cache):
    first = PIPELINES["wan"]()
    second = beside(first)
    with make_cache(schedule=(0, 3)).attached(first) as cache:
        sample(first, "wan", steps=6)
        before = cache.statistics()
        # In the same thread, and the scheduler of the first says six steps still.
        sample(second, "wan", steps=4)
        assert {one.pattern for one in cache.statistics().values()} == {"█··█"}
        sample(first, "wan", steps=6)
        assert cache.statistics() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan", [{"schedule": (0, 3)}, {"schedule": (0, 1, 4), "forecaster": "linear"}], ids=["hold", "linear"]
)
def test_whatever_three_threads_do_at_once_each_sample_is_served_or_computed(plan, make_cache):
    pipes = [PIPELINES["wan"]()]
    pipes += [beside(pipes[0]) for _ in range(2)]
    plain = [sample(pipes[0], "wan", seed=seed) for seed in range(3)]
    with make_cache(**plan).attached(pipes[0]):
        served = [sample(pipes[0], "wan", seed=seed) for seed in range(3)]
    waits = random.Random(3)

    def samples(pipe):
        for count in range(20):
            time.sleep(waits.random() / 50)
            yield count % 3, sample(pipe, "wan", seed=count % 3)

    with make_cache(**plan).attached(pipes[0]), ThreadPoolExecutor(3) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", EasyTeaCacheWarning)
        found = [one for each in pool.map(lambda pipe: list(samples(pipe)), pipes) for one in each]
    kinds = [(torch.equal(sampled, plain[seed]), torch.equal(sampled, served[seed])) for seed, sampled in found]
    assert set(kinds) == {(True, False), (False, True)}


def test_while_a_run_ends_nobody_takes_it_or_waits_for_it():
    """Where the end of a run makes a record, that takes seconds."""
    calling, taken = CallingThread(), []
    with ThreadPoolExecutor(1) as pool:

        def claimed_elsewhere():
            taken.append(pool.submit(calling.claim, lambda: True, lambda: None).result(timeout=60))

        assert calling.claim(lambda: True, lambda: None)
        calling.begun()
        calling.release(claimed_elsewhere)
        assert taken == [False]
        claimed_elsewhere()
        assert taken == [False, True]
        pool.submit(calling.begun).result()
        # This thread takes over a run that is over, and ends it.
        assert calling.claim(lambda: True, claimed_elsewhere)
        assert taken == [False, True, False]


def test_a_run_whose_end_fails_can_be_taken_over():
    calling = CallingThread()

    def fail():
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        calling.claim(lambda: True, fail)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(calling.claim, lambda: True, lambda: None).result()
        with pytest.raises(OSError, match="disk"):
            pool.submit(calling.release, fail).result()
        assert calling.claim(lambda: False, lambda: None)


def test_a_pipeline_that_ends_leaves_a_run_alone_that_another_thread_begins_meanwhile():
    calling, ended = CallingThread(), []
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(calling.claim, lambda: True, lambda: None).result()
        calling.release(lambda: ended.append("another thread's"))
        assert not ended
        pool.submit(calling.release, lambda: ended.append("its own")).result()
    assert ended == ["its own"]
    assert calling.claim(lambda: False, lambda: None)


@torch.no_grad()
def test_a_run_that_its_thread_left_behind_is_taken_over(make_cache):
    model = build(WAN)

    def steps(count):
        with torch.no_grad():
            for step in range(count):
                forward(model, step)

    with make_cache(schedule=(0,)).attached(model) as cache:
        thread = threading.Thread(target=steps, args=(3,))
        thread.start()
        thread.join()
        steps(4)
        assert cache.statistics()["default"].pattern == "█···"


@torch.no_grad()
def test_a_context_of_another_thread_names_no_branch_here(make_cache):
    model = build(WAN)

    def elsewhere(step):
        with torch.no_grad(), model.cache_context("elsewhere"):
            forward(model, step, "uncond")

    with make_cache(schedule=(0,)).attached(model) as cache, ThreadPoolExecutor(1) as pool:
        for step in range(4):
            with model.cache_context("cond"):
                with pytest.warns(EasyTeaCacheWarning) if step == 1 else contextlib.nullcontext():
                    if step:
                        pool.submit(elsewhere, step).result()
                forward(model, step)
        assert {name: one.pattern for name, one in cache.statistics().items()} == {"cond": "█···"}


@torch.no_grad()
def test_a_run_that_was_left_alone_is_so_to_its_end_and_the_next_one_is_served(make_cache):
    model = build(WAN)
    plain = [forward(model, step, "uncond") for step in range(5)]

    def elsewhere(step):
        with torch.no_grad():
            return forward(model, step, "uncond")

    with make_cache(schedule=(0,)).attached(model) as cache, ThreadPoolExecutor(1) as pool:
        forward(model, 0)
        with pytest.warns(EasyTeaCacheWarning, match="another thread"):
            found = [pool.submit(elsewhere, step).result() for step in range(2)]
        forward(model, 1)
        model._diffusers_hook.reset_stateful_hooks()
        found += [pool.submit(elsewhere, step).result() for step in range(2, 5)]
        assert all(map(torch.equal, found, plain))
        again = [pool.submit(elsewhere, step).result() for step in range(5)]
        assert torch.equal(again[0], plain[0])
        assert cache.statistics()["default"].pattern == "█····"
