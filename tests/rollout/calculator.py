"""A calculator, as a tool and in environments of both kinds."""

from __future__ import annotations

import ast
import operator

from burnish.rollout.environments import Environment

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.USub: operator.neg}


def evaluate(expression: str) -> float:
    """The value of numbers with + - * / and parentheses. ValueError for anything else, ZeroDivisionError."""

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.operand))
        raise ValueError("only numbers, + - * / and parentheses")

    try:
        return value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError):
        raise ValueError(f"{expression!r} is no expression") from None


def calculate(expression: str) -> str:
    """
    Computes an arithmetic expression.

    Args:
        expression: Numbers with + - * / and parentheses, such as "(2 + 3) * 4".

    Returns:
        The value.
    """
    return f"{evaluate(expression):g}"


class Calculator:
    """As TRL's `environment_factory` takes them: its methods are tools. The reward is 1 for a right answer that was handed in."""

    def reset(self, answer: float, **_) -> None:
        self.answer, self.handed_in = answer, None

    def calculate(self, expression: str) -> str:
        """
        Computes an arithmetic expression.

        Args:
            expression: Numbers with + - * / and parentheses, such as "(2 + 3) * 4".

        Returns:
            The value.
        """
        return calculate(expression)

    def hand_in(self, answer: float) -> str:
        """
        Hands in the answer to the question. Only the last one counts.

        Args:
            answer: The answer.

        Returns:
            That it was taken.
        """
        self.handed_in = answer
        return "taken"

    def get_reward(self) -> float | None:
        return None if self.handed_in is None else float(self.handed_in == self.answer)


class Sums(Environment):
    """As Burnish has them: three tries at a sum, which are worth 1, 1/2 and 1/4."""

    def reset(self, row):
        self.answer, self.worth = evaluate(row["expression"]), 1.0
        return [{"role": "user", "content": f"What is {row['expression']}?"}]

    def step(self, message):
        right = message["content"].strip() == f"{self.answer:g}"
        reward, self.worth = self.worth * right, self.worth / 2
        over = right or self.worth < 0.25
        return "Right." if right else "No, try again.", reward, over
