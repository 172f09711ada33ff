"""The custom resources `headrace.dev/v1alpha1` as types: what people write, what the operators answer."""
