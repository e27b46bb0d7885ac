"""Checks of how the candidate behaves, beyond the values of one call: state, storage, modes, side
effects, awkward inputs. Each is a short scene: set up, call, compare.

Runs in the verifier's process.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fusewright.run.verify import specs
from fusewright.run.verify.isolate import WorkerRaised
from fusewright.run.verify.specs import Spec
from fusewright.run.verify.trial import Finding, Point, Stop, Trial, describe, failed

# Weights of more bytes are not laid out in other ways, nor widened with the inputs.
_LARGE_WEIGHTS = 256 << 20
Scene = Callable[[Trial], None]


def scene(trial: Trial, name: str, play: Scene, raising: str = "fail") -> None:
    """Play a scene. A candidate that raises fails the check `name`, or only gets a warning where
    `raising` is "warn" (a clear refusal is no wrong answer); a reference that raises skips it."""
    trial.progress(name)
    try:
        with_room(trial, lambda: play(trial))
    except WorkerRaised as failure:
        if not failure.device_fault:
            trial.recover()
        elif failure.role != "referee":
            trial.add(name, "fail", f"a kernel of ModelNew faults: {brief(failure)}")
            raise Stop from failure
        if failure.out_of_memory:
            trial.leave_open(name, brief(failure))
        elif failure.role == "referee":
            trial.add(name, "skip", f"the reference itself raises {brief(failure)}")
        elif raising == "warn":
            trial.add(name, "warn", f"refused: ModelNew raises {brief(failure)}")
        else:
            trial.add(name, "fail", f"ModelNew raises {brief(failure)}")


def with_room(trial: Trial, play: Callable[[], Any]) -> Any:
    """`play()`, a second time with all dispensable memory free where there was too little."""
    try:
        return play()
    except WorkerRaised as failure:
        if not failure.out_of_memory:
            raise
    trial.make_room()
    return play()


def brief(failure: WorkerRaised) -> str:
    first = failure.text.strip().splitlines()[0] if failure.text.strip() else ""
    return f"{failure.kind}: {first[:200]}"


def check_layout(trial: Trial, expected: Spec, got: Spec) -> None:
    """Strides: who may call `.view` on the reference's output may do so on the candidate's."""
    bad: list[str] = []
    odd: list[str] = []
    for (path, mine), (_, theirs) in zip(specs.tensors(expected), specs.tensors(got)):
        if specs.same_layout(mine, theirs):
            continue
        text = f"output{path} has the strides {theirs['stride']}, not {mine['stride']}"
        (bad if specs.is_contiguous(mine) else odd).append(text)
    outcome = "fail" if bad else "warn" if odd else "pass"
    trial.add("strides", outcome, "; ".join(bad + odd) or "as the reference's")


def check_aliases(trial: Trial, expected: list[str], got: list[str]) -> None:
    """An output that shares memory must do so in the reference too."""
    extra = [text for text in got if text not in expected]
    missing = [text for text in expected if text not in got]
    detail = "; ".join(extra) or "; ".join(f"not so here: {text}" for text in missing)
    outcome = "fail" if extra else "warn" if missing else "pass"
    trial.add("aliasing", outcome, detail or "outputs have memory of their own")


def check_isolation(trial: Trial) -> None:
    """What the candidate's code did to its process."""
    report = trial.ask("findings")
    found = list(report["findings"])
    if found:
        trial.add("isolation", "fail", "; ".join(found[:5]))
    elif report["children"]:
        trial.add("isolation", "warn", "left processes: " + ", ".join(report["children"][:5]))
    else:
        trial.add("isolation", "pass", "no patched function, changed setting or thread")


def robust_checks(trial: Trial) -> None:
    """What any caller may do with a module whose shapes are those it was made for."""
    trial.draw_weights("random-1", "random", 1)
    trial.draw_weights("random-2", "random", 2)
    trial.draw_inputs("given-1", "given", 1)
    trial.draw_inputs("given-tail", "tail", 0)
    trial.draw_inputs("given-swap", "swap", 0)
    has_state = bool(trial.weights["given"]["items"])
    if has_state:
        scene(trial, "weights/set-before-first-call", weights_before_first_call)
        scene(trial, "weights/set-after-a-call", weights_after_call)
        scene(trial, "weights/replaced", weights_replaced)
        trial.ask("drop", slot="fresh")
    else:
        trial.add("weights", "skip", "the module has no parameters and no buffers")
    for name, play in (
        ("stale-inputs", same_storage_new_values),
        ("fresh-storage", fresh_storage_same_values),
        ("consecutive-calls", consecutive_calls),
        ("kept-outputs", kept_outputs),
        ("repeat", repeat),
        ("modes", modes),
        ("inference-mode", inference_mode),
        ("other-thread", other_thread),
        ("deepcopy", lambda t: duplicates(t, "deepcopy")),
        ("pickle", lambda t: duplicates(t, "pickle")),
        # Last, since they may leave buffers that belong to a graph, which cannot be copied.
        ("grad-mode", grad_mode),
        ("gradients", gradients),
    ):
        scene(trial, name, play)
    for inputs in ("given-tail", "given-swap"):
        trial.release(base_point(trial, inputs))
        trial.forget_inputs(inputs)


def base_point(trial: Trial, inputs: str = "given-0", weights: str = "random-1") -> Point:
    return Point(weights, inputs, trial.training)


def weights_before_first_call(trial: Trial) -> None:
    """Nothing computed from the weights in the constructor may outlive a change of them."""
    trial.construct("fresh")
    trial.set_weights("fresh", "random-1", "copy")
    found = trial.evaluate(base_point(trial), "fresh")
    trial.tell("weights/set-before-first-call", found)


def called_module(trial: Trial) -> None:
    """The module of the scene before, or another where that one broke off."""
    if "fresh" not in trial.loaded:
        trial.construct("fresh")
        trial.call("fresh", "given-0")


def weights_after_call(trial: Trial) -> None:
    """Nor may anything cached by the first call, or by one whose weights were nearly the same."""
    called_module(trial)
    trial.draw_weights("swapped-2", "swapped", 2)
    found: list[Finding] = []
    for weights in ("random-2", "swapped-2"):
        trial.set_weights("fresh", weights, "data")
        found += trial.evaluate(base_point(trial, weights=weights), "fresh")
    trial.tell("weights/set-after-a-call", found)
    trial.release(base_point(trial, weights="swapped-2"))
    trial.forget_weights("swapped-2")


def weights_replaced(trial: Trial) -> None:
    """load_state_dict(assign=True): new tensors at new addresses."""
    called_module(trial)
    trial.set_weights("fresh", "random-1", "assign")
    found = trial.evaluate(base_point(trial), "fresh")
    trial.tell("weights/replaced", found)


def same_storage_new_values(trial: Trial) -> None:
    """The same input tensors hold other values at the next calls: first all, then only the last
    row, then the same ones with two exchanged."""
    found = trial.evaluate(base_point(trial), drop=False)
    for inputs in ("given-1", "given-0", "given-tail", "given-0", "given-swap"):
        found += again(trial, base_point(trial, inputs), "reuse", drop=False)
    trial.tell("stale-inputs", found)


def fresh_storage_same_values(trial: Trial) -> None:
    found = again(trial, base_point(trial), "plain") + again(trial, base_point(trial), "plain")
    trial.tell("fresh-storage", found)


def again(trial: Trial, point: Point, layout: str, **plan: Any) -> list[Finding]:
    """Another call of the main module at `point`, its inputs laid out as `layout` says."""
    trial.ensure_weights("main", point.weights)
    report = trial.call("main", point.inputs, layout, seed=point.seed, **plan)
    found = trial.judge(point, report)
    if trial.expect(point)["changed"]:
        trial.loaded["main"] = "changed"
    return found


def consecutive_calls(trial: Trial) -> None:
    """What a call leaves in buffers that no state_dict holds shows in the next ones."""
    if not trial.remembers:
        return
    found: list[Finding] = []
    trial.set_weights("main", "random-1")
    calls = ("given-1", "given-0", "given-1")
    for done, inputs in enumerate(calls):
        point = replace(base_point(trial, inputs), after=calls[:done], whole=True)
        report = trial.call("main", inputs, seed=point.seed)
        found += trial.judge(point, report)
        trial.release(point)
    trial.loaded["main"] = "changed"
    trial.tell("consecutive-calls", found)


def kept_outputs(trial: Trial) -> None:
    """An output that the caller keeps is still right after many calls with other inputs, and these
    are right as well. What lives in the state of the reference, too, may change with it."""
    point, tail = base_point(trial), base_point(trial, "given-tail")
    found = again(trial, point, "plain", keep="first")
    found += again(trial, base_point(trial, "given-1"), "plain")
    found += again(trial, tail, "plain")
    plan = {"slot": "main", "inputs": "x", "seed": tail.seed}
    last = trial.ask("exercise", prefix=trial.path("candidate"), **plan)
    if last is not None and not trial.expect(tail)["changed"]:
        found += trial.judge(tail, {"output": last})
    kept = trial.ask("redump", keep="first", prefix=trial.path("candidate"))
    pairs = [text.split(" shares memory with ") for text in trial.expect(point)["aliases"]]
    moving = {path for path, owner in pairs if owner in trial.expect(point)["changed"]}
    found += [f for f in trial.judge(point, {"output": kept}) if f["path"] not in moving]
    trial.tell("kept-outputs", found)


def repeat(trial: Trial) -> None:
    """The same call twice: right both times; different bits are reported, not rejected."""
    point = base_point(trial)
    reports = []
    for _ in range(2):
        trial.ensure_weights("main", point.weights)
        reports.append(trial.call("main", point.inputs, seed=point.seed))
        if trial.expect(point)["changed"]:
            trial.loaded["main"] = "changed"
    outputs = [report["output"] for report in reports]
    same = trial.ask_referee("same", first=outputs[0], second=outputs[1])
    found = [f for report in reports for f in trial.judge(point, report)]
    if all(f["ok"] for f in found) and not same:
        trial.add("repeat", "warn", "two equal calls give different bits (both are right)")
    else:
        trial.tell("repeat", found)


def modes(trial: Trial) -> None:
    """train() and eval(), one after the other, with the buffers that each call leaves."""
    for train in (False,) if trial.other_stream else (not trial.training, trial.training):
        point = Point("random-2", "given-0", train)
        found = trial.evaluate(point, state=trial.ask_referee("weights", name=point.weights))
        trial.tell("modes/" + ("train" if train else "eval"), found)
    trial.ask("train", slot="main", mode=trial.training)


def inference_mode(trial: Trial) -> None:
    trial.tell("inference-mode", again(trial, base_point(trial), "plain", context="inference"))


def other_thread(trial: Trial) -> None:
    """A call from another thread than the module was made in, as a server makes them."""
    trial.tell("other-thread", again(trial, base_point(trial), "plain", context="thread"))


def grad_mode(trial: Trial) -> None:
    """The values of a call that could be differentiated, for which many files have another path."""
    trial.tell("grad-mode", again(trial, base_point(trial), "plain", context="grad"))


def gradients(trial: Trial) -> None:
    """Where gradients flow through the reference, they must flow here too, and agree: in the given
    mode and, where that is cheap, in the other."""
    costly = trial.slow or trial.sampling or trial.other_stream
    found: list[Finding] = []
    for train in (trial.training,) if costly else (trial.training, not trial.training):
        trial.ask("train", slot="main", mode=train)
        found += gradients_at(trial, replace(base_point(trial), train=train))
    trial.ask("train", slot="main", mode=trial.training)
    if found:
        trial.tell("gradients", found)
    else:
        trial.add("gradients", "skip", "no gradient flows through the reference")


def gradients_at(trial: Trial, point: Point) -> list[Finding]:
    """Findings for all gradients at a point; none where none flows through the reference."""
    expected = trial.ask_referee(
        "expect_gradients",
        weights=point.weights,
        inputs=point.inputs,
        seed=point.seed,
        train=point.train,
        sampled=trial.sampling,
    )
    names = expected["names"]
    found = flow(trial, point, "all", names, expected) if names else []
    # A file may look at one of them only to see whether a gradient is wanted.
    both = any(n.startswith("input") for n in names) and not all(
        n.startswith("input") for n in names
    )
    for watch in ("parameters", "inputs") if both and all(f["ok"] for f in found) else ():
        try:
            flowing = trial.ask_referee("flowing", watch=watch)
        except WorkerRaised as failure:
            if failure.out_of_memory or failure.role != "referee":
                raise
            continue
        found += flow(trial, point, watch, flowing, expected)
    trial.ask_referee("forget_gradients")
    return found


def flow(
    trial: Trial, point: Point, watch: str, names: list[str], expected: dict[str, Any]
) -> list[Finding]:
    """Findings for the gradients of what is watched (see backward.gradients): those of `names`."""
    trial.ensure_weights("main", point.weights)
    trial.put(point.inputs, "borrowed")
    got = trial.ask(
        "backward",
        slot="main",
        inputs="x",
        seed=point.seed,
        prefix=trial.path("candidate"),
        rows=expected["rows"],
        watch=watch,
    )
    if trial.expect(point)["changed"]:
        trial.loaded["main"] = "changed"
    trial.ask("drop_inputs", name="x")
    arguments = {"spec": got["grads"], "names": names, "patient": trial.patient()}
    found = trial.ask_referee("judge_gradients", **arguments)
    trial.discard(got["grads"])
    if watch == "all":
        cut = [path for path in expected["outputs"] if path not in got["outputs"]]
        found += [failed(f"output{path}", "no gradient flows back from it") for path in cut]
    else:
        why = f", where only {watch} require one"
        found = [f if f["ok"] else f | {"reason": f["reason"] + why} for f in found]
    return found


def duplicates(trial: Trial, how: str) -> None:
    """A copy computes the same, and neither feels what is done to the other."""
    trial.ensure_weights("main", "random-1")
    try:
        trial.ask("duplicate", slot="main", into="copy", how=how)
    except WorkerRaised:
        # If the reference refuses as well, its refusal is what counts.
        trial.ask_referee("duplicate", slot="reference", into="copy", how=how)
        trial.ask_referee("drop", slot="copy")
        raise
    trial.loaded["copy"] = "random-1"
    found = trial.evaluate(base_point(trial), "copy")
    if trial.weights["given"]["items"]:
        trial.set_weights("copy", "random-2", "copy")
        found += trial.evaluate(base_point(trial, weights="random-2"), "copy")
        found += again(trial, base_point(trial), "plain")
    trial.ask("drop", slot="copy")
    trial.tell(how, found)


def awkward_checks(trial: Trial) -> None:
    """What a caller may do that the file may refuse, but must not answer wrongly."""
    for name, play in (
        ("non-contiguous", lambda t: layouts(t, "non-contiguous", "strided")),
        ("padded-rows", lambda t: layouts(t, "padded-rows", "padded")),
        ("permuted", lambda t: layouts(t, "permuted", "permuted")),
    ):
        scene(trial, name, play, "warn")
    if 0 < specs.byte_count(trial.weights["given"]) <= _LARGE_WEIGHTS:
        scene(trial, "weights/strided", weights_strided, "warn")
    for rows in other_batches(trial):
        scene(trial, f"batch-{rows}", lambda t, n=rows: batch(t, n), "warn")
    scene(trial, "double-precision", double_precision, "warn")
    for kind in ("floats", "ints"):
        scene(trial, f"other-{kind}", lambda t, k=kind: other_numbers(t, k), "warn")
    scene(trial, "special-values", special_values, "warn")
    check_isolation(trial)
    # Last: where a kernel of both files faults (a library's, called alike), both processes are
    # lost.
    scene(trial, "misaligned", lambda t: layouts(t, "misaligned", "misaligned"), "warn")


def weights_strided(trial: Trial) -> None:
    """Weights that are views of others, as a caller may set them."""
    trial.construct("fresh")
    trial.set_weights("fresh", "random-1", "strided")
    trial.tell("weights/strided", trial.evaluate(base_point(trial), "fresh"))
    trial.ask("drop", slot="fresh")


def layouts(trial: Trial, name: str, layout: str) -> None:
    """The values of a known point in storage of another layout."""
    point = base_point(trial)
    if not trial.put(point.inputs, layout):
        trial.add(name, "skip", "no input can be laid out so")
        return
    try:
        found = again(trial, point, "as-is")
    except WorkerRaised:
        # If the reference refuses as well, its refusal is what counts.
        spec = trial.ask_referee("inputs", name=point.inputs)
        trial.ask_referee("put", name="x", spec=spec, layout=layout)
        trial.ask_referee("call", slot="reference", inputs="x", seed=point.seed, prefix=None)
        raise
    if any(f["ok"] is False for f in found) and no_worse_than_reference(
        trial, point, layout, found
    ):
        trial.add(name, "warn", "as inaccurate as the reference so laid out: " + describe(found))
    else:
        trial.tell(name, found)


def no_worse_than_reference(trial: Trial, point: Point, layout: str, found: list[Finding]) -> bool:
    """Whether the reference, called with inputs of that layout, is no nearer to float64."""
    judged = point if point.name in trial.points else replace(point, whole=True)
    excused = trial.ask_referee("own_errors", name=judged.name, layout=layout)
    return all(f["ok"] is True or f["norm"] <= excused.get(f["path"], 0.0) for f in found)


def other_batches(trial: Trial) -> list[int]:
    """Batch sizes to try besides the given one: one, one less, more than twice as many (beyond any
    rounding up to a block), none. An empty batch as given has no rows to make others of."""
    given = specs.batch_rows(trial.inputs["given-0"])
    if not given:
        return []
    sizes = (1, given + 1, 0) if trial.sampling else (1, given - 1, 2 * given + 1, 0)
    return [n for n in dict.fromkeys(sizes) if n >= 0 and n != given]


def batch(trial: Trial, rows: int) -> None:
    """Another batch size; skipped where the reference does not take it."""
    name = f"batch-{rows}"
    trial.draw_inputs(name, "given", 3, rows)
    point = base_point(trial, name)
    trial.tell(name, trial.evaluate(point))
    trial.release(point)
    trial.forget_inputs(name)


def double_precision(trial: Trial) -> None:
    """Weights and inputs in float64: refused, or computed so; in less is a warning."""
    size = sum(specs.byte_count(s) for s in (trial.inputs["given-0"], trial.weights["given"]))
    if trial.slow or trial.sampling or size > _LARGE_WEIGHTS:
        return
    train = trial.training and not trial.expect(base_point(trial))["rng"]
    point, inputs = replace(base_point(trial), train=train), "given-double"
    trial.expect(point)
    trial.draw_inputs(inputs, "double", 0)
    trial.construct("fresh")
    trial.set_weights("fresh", point.weights)
    for command, plan in (("double", {}), ("train", {"mode": train})):
        trial.ask(command, slot="fresh", **plan)
    output = trial.call("fresh", inputs, seed=point.seed)["output"]
    found = trial.ask_referee("judge_doubles", name=point.name, inputs=inputs, output=output)
    trial.discard(output)
    trial.ask("drop", slot="fresh")
    trial.forget_inputs(inputs)
    less = [f for f in found if f["ok"] is None]
    if less and all(f["ok"] is not False for f in found):
        trial.add("double-precision", "warn", "computed in less than float64: " + describe(less))
    else:
        trial.tell("double-precision", found)


def other_numbers(trial: Trial, kind: str) -> None:
    """Python numbers among the inputs with other values; skipped where the reference does not take
    them."""
    name = f"given-{kind}"
    if not has_numbers(trial, kind):
        return
    trial.draw_inputs(name, kind, 0)
    point = base_point(trial, name)
    trial.tell(f"other-{kind}", trial.evaluate(point))
    trial.release(point)
    trial.forget_inputs(name)


def has_numbers(trial: Trial, kind: str) -> bool:
    wanted = {"floats": float, "ints": int}[kind]
    leaves = [leaf for _, leaf in specs.leaves(trial.inputs["given-0"]) if leaf["k"] == "value"]
    return any(type(leaf["value"]) is wanted for leaf in leaves)


def special_values(trial: Trial) -> None:
    """NaN, infinities, denormal and huge numbers: a contract of its own, reported as a warning."""
    trial.draw_inputs("special", "special", 4)
    point = base_point(trial, "special")
    found = trial.evaluate(point, confirm=False)
    wrong = [f for f in found if f["ok"] is False]
    if wrong:
        trial.add("special-values", "warn", f"{wrong[0]['path']}: {wrong[0]['reason']}")
    else:
        trial.add("special-values", "pass", "NaN, Inf, denormal and huge inputs end up alike")
    trial.release(point)
