"""The traced loss as a list of operations, every place where a parameter meets data.

A value of the program is CONST (known before data is seen, and no gradient flows
through it), PARAM (computed from parameters and constants alone) or DATA (depends on
the example). An operation with a PARAM and a DATA input and a differentiable output is
a *site*. Whatever path a gradient takes from the loss to a parameter, it crosses a site
exactly once, where it leaves the data and enters the parameters: so the sites are all
that there is to look at, whatever layers a model is made of.

Calls whose body mixes the two kinds are opened; a scan is entered when no parameter
travels in its carry; anything else that mixes them is one site as a whole, whose
derivative JAX knows. What can't be followed raises: nothing is left out silently.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
_CALLS |= {"core_call": "call_jaxpr"}
_RECOMPUTED = ("remat", "remat2", "checkpoint")


class Kind(enum.IntEnum):
    """What a value depends on; the larger one wins."""

    CONST = 0
    PARAM = 1
    DATA = 2


@dataclasses.dataclass(eq=False)
class Value:
    """A value of the program; identity is what tells values apart.

    Args:
      aval: shape and dtype, for one example.
      kind: what it depends on.
      constant: its array, of a constant that the loss closes over.
      producer: the operation that computes it; None of inputs and constants.
      outer: for an input of a body, the value outside that it comes from.
      entry: for an input of a loop's body, the loop and whether it scans over it.
    """

    aval: Any
    kind: Kind
    constant: Any = None
    producer: Operation | None = None
    outer: Value | None = None
    entry: tuple[Loop, bool] | None = None

    @property
    def differentiable(self) -> bool:
        """Whether a gradient can flow through it."""
        return jnp.issubdtype(self.aval.dtype, jnp.inexact)


@dataclasses.dataclass(eq=False)
class Operation:
    """One equation of the loss.

    Args:
      name: of the primitive.
      inputs: values, each once.
      outputs: values, in the order of what `fn` returns.
      fn: from arrays of the inputs to a list of arrays of the outputs.
      params: the primitive's parameters.
      operands: for every argument of the primitive, its place in `inputs`, or None of
        a literal number.
      effects: whether it does something besides, so that it must be run.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    fn: Callable[..., Sequence[Any]]
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    operands: tuple[int | None, ...] = ()
    effects: bool = False

    def __post_init__(self) -> None:
        """Signs the outputs."""
        for value in self.outputs:
            value.producer = self


@dataclasses.dataclass(eq=False)
class Site(Operation):
    """An operation where parameters meet data.

    Args:
      loops: the loops that it stands in, from the outermost.
      tracked: the outputs through which a gradient flows.
    """

    loops: tuple[Loop, ...] = ()

    @property
    def tracked(self) -> tuple[int, ...]:
        """The outputs through which a gradient flows."""
        return tuple(i for i, v in enumerate(self.outputs) if v.differentiable)


@dataclasses.dataclass(eq=False)
class Loop(Operation):
    """A scan that is entered, since sites stand in its body.

    Args:
      body: the operations of one iteration.
      num_consts, num_carry: how the inputs are divided; the rest is scanned over.
    """

    body: Program = dataclasses.field(default_factory=lambda: Program((), []))
    num_consts: int = 0
    num_carry: int = 0


@dataclasses.dataclass(eq=False)
class Recomputed(Operation):
    """A part that is run again for the backward pass, with sites in it.

    Args:
      body: its operations.
    """

    body: Program = dataclasses.field(default_factory=lambda: Program((), []))


@dataclasses.dataclass(eq=False)
class Program:
    """Operations in order, from inputs to outputs.

    Args:
      inputs: values that are given.
      operations: in an order in which they can be run.
      outputs: what is computed.
    """

    inputs: tuple[Value, ...]
    operations: list[Operation]
    outputs: tuple[Value, ...] = ()

    def sites(self) -> list[Site]:
        """All sites, those in loops included."""
        found: list[Site] = []
        for operation in self.operations:
            if isinstance(operation, Site):
                found.append(operation)
            elif isinstance(operation, Loop | Recomputed):
                found.extend(operation.body.sites())
        return found


def trace(
    loss_fn: Any,
    params: Any,
    example: Any,
    key: Any,
    *,
    as_data: Collection[int] = (),
    open_recomputed: bool = True,
) -> Program:
    """The program of a loss of one example.

    Args:
      loss_fn: (params, example, key) -> scalar.
      params: parameters, or their shapes.
      example: shapes of one example, without a batch axis.
      key: the shape of one key, or None.
      as_data: the numbers of leaves of params that count as DATA.
      open_recomputed: whether parts under `jax.checkpoint` are opened, which gives up
        the memory that they save.

    Returns:
      A program whose inputs are the leaves of the three, in that order, and whose only
      output is the loss, a DATA value.

    Raises:
      ValueError: the loss does not depend on the example, or not on the parameters.
    """
    closed = jax.make_jaxpr(loss_fn)(params, example, key)
    num_params = len(jax.tree.leaves(params))
    trained = set(range(num_params)) - set(as_data)
    inputs = tuple(
        Value(var.aval, Kind.PARAM if i in trained else Kind.DATA)
        for i, var in enumerate(closed.jaxpr.invars)
    )
    builder = _Builder((), open_recomputed)
    outputs = builder.add(closed.jaxpr, _constants(closed), inputs)
    program = Program(inputs, builder.operations, tuple(outputs))
    prune(program)
    (loss,) = program.outputs
    if loss.kind is not Kind.DATA:
        raise ValueError(
            "loss_fn does not depend on the example: every example would have the same "
            "gradient, and nothing could be learnt; use the example in the loss"
        )
    if not program.sites() and not as_data:
        raise ValueError(
            "loss_fn does not depend on params through anything that has a gradient: "
            "there is nothing to train; check that params are used, not a copy"
        )
    return program


def prune(program: Program) -> None:
    """Drops, in place, the operations that the outputs don't need."""
    needed = {id(value) for value in program.outputs}
    kept = []
    for operation in reversed(program.operations):
        wanted = any(id(value) in needed for value in operation.outputs)
        if wanted or operation.effects:
            kept.append(operation)
            needed.update(id(value) for value in operation.inputs)
    program.operations = kept[::-1]


class _Builder:
    """Collects the operations of one program or loop body."""

    def __init__(self, loops: tuple[Loop, ...], open_recomputed: bool) -> None:
        self.loops = loops
        self.open_recomputed = open_recomputed
        self.operations: list[Operation] = []
        self.around: Any = None

    def add(
        self, jaxpr: Any, constants: Sequence[Value], inputs: Sequence[Value]
    ) -> list[Value]:
        """Appends a jaxpr's equations; returns the values of its outputs."""
        known = dict(zip(jaxpr.constvars, constants, strict=True))
        known.update(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            return _literal(atom) if isinstance(atom, core.Literal) else known[atom]

        for eqn in jaxpr.eqns:
            arguments = [read(atom) for atom in eqn.invars]
            self.around = jaxpr
            known.update(zip(eqn.outvars, self._equation(eqn, arguments), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, arguments: list[Value]) -> Sequence[Value]:
        """The values of an equation's outputs."""
        kinds = {value.kind for value in arguments}
        if not {Kind.PARAM, Kind.DATA} <= kinds:
            return self._plain(eqn, arguments, max(kinds, default=Kind.CONST))
        name = eqn.primitive.name
        if name in _CALLS:
            inner = eqn.params[_CALLS[name]]
            if hasattr(inner, "consts"):
                return self.add(inner.jaxpr, _constants(inner), arguments)
            return self.add(inner, (), arguments)
        if name in _RECOMPUTED:
            if self.open_recomputed:
                return self.add(eqn.params["jaxpr"], (), arguments)
            return self._recomputed(eqn, arguments)
        if name == "scan":
            return self._scan(eqn, arguments)
        return self._site(eqn, arguments)

    def _plain(self, eqn: Any, arguments: list[Value], kind: Kind) -> list[Value]:
        """An equation that does not mix parameters with data."""
        still = kind is Kind.PARAM and eqn.primitive.name == "stop_gradient"
        outputs = [Value(var.aval, kind) for var in eqn.outvars]
        for value in outputs:
            if kind is Kind.PARAM and (still or not value.differentiable):
                value.kind = Kind.CONST
        self._append(Operation, eqn, arguments, outputs)
        return outputs

    def _site(self, eqn: Any, arguments: list[Value]) -> list[Value]:
        """An equation that does."""
        outputs = [Value(var.aval, Kind.DATA) for var in eqn.outvars]
        mixed = any(value.differentiable for value in outputs)
        if mixed:
            self._append(Site, eqn, arguments, outputs, loops=self.loops)
        else:
            self._append(Operation, eqn, arguments, outputs)
        return outputs

    def _append(
        self, kind: Any, eqn: Any, arguments: list[Value], outputs: Any, **more: Any
    ) -> None:
        """Adds the operation of an equation."""
        inputs, operands = _distinct(eqn, arguments)
        fn = _evaluator(self.around, eqn, operands, len(inputs))
        operation = kind(
            eqn.primitive.name, inputs, tuple(outputs), fn, eqn.params, operands, **more
        )
        operation.effects = bool(eqn.effects)
        self.operations.append(operation)

    def lifted(self, value: Value) -> Value:
        """The value as DATA: a site of its own where it depended on parameters."""
        if value.kind is Kind.DATA:
            return value
        output = Value(value.aval, Kind.DATA)
        made: dict[str, Any] = {}
        kind: Any = Operation
        if value.kind is Kind.PARAM:
            kind, made = Site, {"loops": self.loops}
        operation = kind("lift", (value,), (output,), lambda x: [x], {}, (0,), **made)
        self.operations.append(operation)
        return output

    def _recomputed(self, eqn: Any, arguments: list[Value]) -> Sequence[Value]:
        """A part under `jax.checkpoint`, kept as such."""
        builder = _Builder(self.loops, False)
        inputs = tuple(Value(v.aval, v.kind, outer=v) for v in arguments)
        results = builder.add(eqn.params["jaxpr"], (), inputs)
        results = [builder.lifted(value) for value in results]
        body = Program(inputs, builder.operations, tuple(results))
        prune(body)
        outputs = tuple(Value(var.aval, Kind.DATA) for var in eqn.outvars)
        part = Recomputed(
            "remat", tuple(arguments), outputs, _unused, eqn.params, body=body
        )
        self.operations.append(part)
        return outputs

    def _scan(self, eqn: Any, arguments: list[Value]) -> Sequence[Value]:
        """A loop with sites in it, or one site where a parameter is in the carry."""
        params = eqn.params
        num_consts, num_carry = params["num_consts"], params["num_carry"]
        kinds = [value.kind for value in arguments]
        carry = slice(num_consts, num_consts + num_carry)
        while True:  # kinds only grow, so this ends
            outs = _output_kinds(params["jaxpr"], kinds, self.open_recomputed)
            joined = [max(k) for k in zip(kinds[carry], outs[:num_carry], strict=True)]
            if joined == kinds[carry]:
                break
            kinds[carry] = joined
        if Kind.PARAM in joined or Kind.PARAM in outs[num_carry:]:
            return self._site(eqn, arguments)
        if self.loops and any(constants_of(value) for value in arguments):
            return self._site(eqn, arguments)
        return self._enter(eqn, arguments, kinds)

    def _enter(
        self, eqn: Any, arguments: list[Value], kinds: list[Kind]
    ) -> Sequence[Value]:
        """The loop, with a body of its own."""
        params, closed = eqn.params, eqn.params["jaxpr"]
        num_consts, num_carry = params["num_consts"], params["num_carry"]
        arguments = [
            self.lifted(value) if kind is Kind.DATA else value
            for value, kind in zip(arguments, kinds, strict=True)
        ]
        loop = Loop("scan", tuple(arguments), (), _unused, params)
        loop.num_consts, loop.num_carry = num_consts, num_carry
        builder = _Builder((*self.loops, loop), self.open_recomputed)
        scanned = [i >= num_consts + num_carry for i in range(len(arguments))]
        inputs = tuple(
            Value(var.aval, kind, outer=value, entry=(loop, scans))
            for var, kind, value, scans in zip(
                closed.jaxpr.invars, kinds, arguments, scanned, strict=True
            )
        )
        results = builder.add(closed.jaxpr, _constants(closed), inputs)
        for i in range(num_carry):
            if kinds[num_consts + i] is Kind.DATA:
                results[i] = builder.lifted(results[i])
        loop.body = Program(inputs, builder.operations, tuple(results))
        prune(loop.body)
        loop.outputs = tuple(Value(var.aval, Kind.DATA) for var in eqn.outvars)
        for value in loop.outputs:
            value.producer = loop
        self.operations.append(loop)
        return loop.outputs


def constants_of(value: Value) -> list[Value]:
    """The computed constants that a PARAM value is made of, up to program inputs."""
    if value.kind is Kind.PARAM and value.producer is not None:
        parts = [constants_of(part) or [part] for part in value.producer.inputs]
        found = dict.fromkeys(part for some in parts for part in some)
        return [v for v in found if v.kind is Kind.CONST and v.constant is None]
    return []


def _output_kinds(
    closed: Any, kinds: Sequence[Kind], open_recomputed: bool
) -> list[Kind]:
    """The kinds of a body's outputs, given those of its inputs."""
    builder = _Builder((), open_recomputed)
    invars = closed.jaxpr.invars
    inputs = [Value(v.aval, kind) for v, kind in zip(invars, kinds, strict=True)]
    return [v.kind for v in builder.add(closed.jaxpr, _constants(closed), inputs)]


def _constants(closed: Any) -> list[Value]:
    """What a jaxpr closes over."""
    return [
        Value(jax.typeof(constant), Kind.CONST, constant=constant)
        for constant in closed.consts
    ]


def _literal(atom: Any) -> Value:
    """A number that is written into an equation."""
    return Value(atom.aval, Kind.CONST, constant=atom.val)


def _distinct(
    eqn: Any, arguments: list[Value]
) -> tuple[tuple[Value, ...], tuple[int | None, ...]]:
    """The inputs of an equation, each once, and where each argument is among them."""
    inputs: list[Value] = []
    operands: list[int | None] = []
    for atom, value in zip(eqn.invars, arguments, strict=True):
        if isinstance(atom, core.Literal):
            operands.append(None)
            continue
        if not any(value is other for other in inputs):
            inputs.append(value)
        operands.append(next(i for i, v in enumerate(inputs) if v is value))
    return tuple(inputs), tuple(operands)


def _evaluator(
    around: Any, eqn: Any, operands: Sequence[int | None], count: int
) -> Callable[..., Sequence[Any]]:
    """An equation of the jaxpr `around`, as a function of its distinct inputs."""
    variables: list[Any] = [None] * count
    atoms = []
    for atom, place in zip(eqn.invars, operands, strict=True):
        if place is None:
            atoms.append(atom)
            continue
        if variables[place] is None:
            variables[place] = atom
        atoms.append(variables[place])
    single = eqn.replace(invars=atoms)
    jaxpr = around.replace(
        constvars=(),
        invars=variables,
        outvars=eqn.outvars,
        eqns=[single],
        effects=eqn.effects,
        debug_info=around.debug_info.with_unknown_names(),
    )
    return lambda *arrays: jax.core.eval_jaxpr(jaxpr, (), *arrays)


def _unused(*arrays: Any) -> Sequence[Any]:
    """Loops are run by their bodies."""
    raise NotImplementedError
