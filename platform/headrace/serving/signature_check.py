"""Whether a request's tensors are what a model takes, said in a sentence where they are not.

Checked before requests are put into batches together, so that one sender's mistake never reaches another's batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.serving.errors import bad_request
from headrace_models.tasks.base import Arrays, Signature, TensorSpec


def check_inputs(signature: Signature, inputs: Arrays, datatypes: Mapping[str, str]) -> int:
    """The number of rows (the size of axis 0) that INPUTS hold together.

    Raises RequestError (400): no set of tensors that the model takes fits INPUTS, or they disagree on the rows.
    """
    sets = (signature.inputs, *signature.alternatives)
    if not any(_fits(specs, inputs, datatypes) for specs in sets):
        raise bad_request(_what_is_wrong(sets, inputs, datatypes))
    rows: set[int] = {array.shape[0] for array in inputs.values() if array.ndim}
    if len(rows) > 1:
        raise bad_request(f"the inputs disagree on the number of rows: {', '.join(map(str, sorted(rows)))}")
    if not rows or rows == {0}:
        raise bad_request("the inputs hold no row")
    return int(rows.pop())


def _fits(specs: Sequence[TensorSpec], inputs: Arrays, datatypes: Mapping[str, str]) -> bool:
    return {spec.name for spec in specs} == set(inputs) and all(
        datatypes[spec.name] == spec.datatype and _shape_fits(spec.shape, inputs[spec.name].shape) for spec in specs
    )


def _shape_fits(wanted: Sequence[int], given: Sequence[int]) -> bool:
    return len(wanted) == len(given) and all(w in (-1, g) for w, g in zip(wanted, given, strict=True))


def _what_is_wrong(sets: Sequence[Sequence[TensorSpec]], inputs: Arrays, datatypes: Mapping[str, str]) -> str:
    names = {spec.name for spec in sets[0]}
    if unknown := sorted(set(inputs) - names):
        return f"the model has no input {unknown[0]!r}; it takes {_describe(sets)}"
    if missing := sorted(names - set(inputs)):
        return f"the input {missing[0]!r} is missing; the model takes {_describe(sets)}"
    for name in sorted(inputs):
        allowed = [spec for specs in sets for spec in specs if spec.name == name]
        if datatypes[name] not in {spec.datatype for spec in allowed}:
            kinds = " or ".join(dict.fromkeys(spec.datatype for spec in allowed))
            return f"the input {name!r} has datatype {datatypes[name]}; the model takes {kinds}"
        same_type = [spec for spec in allowed if spec.datatype == datatypes[name]]
        if not any(_shape_fits(spec.shape, inputs[name].shape) for spec in same_type):
            shapes = " or ".join(dict.fromkeys(str(list(spec.shape)) for spec in same_type))
            given = f"{list(inputs[name].shape)} of {datatypes[name]}"
            return f"the input {name!r} has shape {given}; the model takes {shapes}"
    return f"the inputs mix what the model takes only apart; it takes {_describe(sets)}"


def _describe(sets: Sequence[Sequence[TensorSpec]]) -> str:
    return " or ".join(
        ", ".join(f"{spec.name} ({spec.datatype} {list(spec.shape)})" for spec in specs) for specs in sets
    )
