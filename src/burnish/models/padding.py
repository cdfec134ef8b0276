"""Which token is padding, for a model that reads its score at a row's last token.

transformers finds that token as the last one that is not padding. Where padding is the end-of-sequence token, as many tokenizers
have it, the score of a whole row would be read before its end: another token has to be padding then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NEW = "<|padding|>"


def set_padding(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """Settles it for both, in place, and says what was changed and why, in sentences.

    The tokenizer's own, if no row ends with it; else its unknown token, another special token that its chat template does not
    write, or a new one where the embedding has room. Where there is none of these, the model will only take one row at a time.
    """
    config = model.config.get_text_config()
    rows, before = model.get_input_embeddings().weight.shape[0], tokenizer.pad_token
    stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends, template = {tokenizer.eos_token_id, *stops}, str(tokenizer.chat_template or "")
    fitting = (
        token
        for token in _candidates(tokenizer)
        if (place := tokenizer.convert_tokens_to_ids(token)) not in ends and place < rows and token not in template
    )
    found = next(fitting, NEW if len(tokenizer) < rows else None)
    if found is not None:
        tokenizer.add_special_tokens({"pad_token": found})
    model.config.pad_token_id = config.pad_token_id = None if found is None else tokenizer.pad_token_id
    if found == before:
        return ()
    why = f"{before} ends rows, and transformers passes over padding to find a row's last token" if before else "there was none"
    if found is None:
        return (f"No token can be padding ({why}): transformers will take one row at a time of this model.",)
    return (f"Padding is {found} from here on, for the model and for its tokenizer: {why}.",)


def _candidates(tokenizer: Any) -> Iterator[str]:
    """The best first. What begins rows comes last."""
    special = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    for token in (tokenizer.pad_token, tokenizer.unk_token, *(one for one in special if one != tokenizer.bos_token), tokenizer.bos_token):
        if token is not None:
            yield token
