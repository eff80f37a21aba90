"""A learned prefix of the decoder: keys and values that every target token attends to, before the sentence."""

import torch
from torch import nn
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedConfig


def decoder_cache_shape(text_config: PreTrainedConfig) -> tuple[int, int, int]:
    """What keys and values of a language model's decoder are made of.

    Args:
        text_config ([`~transformers.PreTrainedConfig`]): of the language model.

    Returns:
        `tuple[int, int, int]`: layers, heads and width of a head.
    """
    layers = getattr(text_config, "decoder_layers", None) or text_config.num_decoder_layers
    heads = getattr(text_config, "decoder_attention_heads", None) or text_config.num_attention_heads
    # T5's heads need not add up to its width.
    return layers, heads, getattr(text_config, "d_kv", None) or text_config.hidden_size // heads


class FlaDecoderPrefix(nn.Module):
    r"""Prefix tuning's outcome: one key and one value a virtual token, layer and head, for decoder self-attention.

    The language model itself is as it was; the sentence begins at position `num_tokens`, as it does in `peft`.

    Args:
        text_config (`PreTrainedConfig`):
            Of the language model.
        num_tokens (`int`):
            P, virtual tokens.
    """

    def __init__(self, text_config: PreTrainedConfig, num_tokens: int):
        super().__init__()
        layers, heads, width = decoder_cache_shape(text_config)
        self.num_tokens = num_tokens
        self.keys_and_values = nn.Parameter(torch.zeros(layers, 2, heads, num_tokens, width))

    def forward(self) -> torch.FloatTensor:
        """Keys and values that stand before every sentence.

        Returns:
            `torch.FloatTensor` of shape `(layers, 2, heads, P, width of a head)`: of each layer the keys, then the
                values.
        """
        return self.keys_and_values

    def put_before(
        self, past_key_values: Cache | None, decoder_attention_mask: torch.Tensor | None, batch_size: int
    ) -> tuple[Cache, torch.Tensor | None]:
        r"""Begin a sentence's cache with the prefix, or leave alone a cache that goes on.

        Args:
            past_key_values (`Cache`, *optional*):
                The decoder's cache; an empty one is filled in place, and made where there is none.
            decoder_attention_mask (`torch.Tensor` of shape `(B, L)`, *optional*):
                1 for a target token.
            batch_size (`int`):
                B.

        Returns:
            `tuple[Cache, torch.Tensor]`: the cache, and the mask over prefix and sentence.

        Raises:
            ValueError: if the cache has a fixed length, in which the prefix has no place.
        """
        if past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        own = getattr(past_key_values, "self_attention_cache", past_key_values)
        if not isinstance(own, DynamicCache):
            raise ValueError(f"A decoder with a prefix needs a `DynamicCache`, got a `{type(own).__name__}`.")
        if own.get_seq_length() == 0:
            prefix = self().unsqueeze(2).expand(-1, -1, batch_size, -1, -1, -1)  # (layers, 2, B, heads, P, width)
            kind = prefix.device.type
            if torch.is_autocast_enabled(kind):  # the sentence's own keys will be of that type
                prefix = prefix.to(torch.get_autocast_dtype(kind))
            for layer, (keys, values) in enumerate(prefix):
                own.update(keys, values, layer)
        if decoder_attention_mask is not None:
            ones = decoder_attention_mask.new_ones(batch_size, self.num_tokens)
            decoder_attention_mask = torch.cat([ones, decoder_attention_mask], dim=1)
        return past_key_values, decoder_attention_mask
