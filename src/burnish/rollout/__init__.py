"""Completions drawn from the policy: samplers, turns, and rollouts as a source of steps."""
