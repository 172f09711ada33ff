"""The controller runtime: how a change of an object becomes an action. Read docs/operators/runtime.md first."""
