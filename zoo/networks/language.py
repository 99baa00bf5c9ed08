"""Networks that read tokens."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from zoo.network import Network

VOCABULARY = 1000
ENDS = {"bos_token_id": 0, "eos_token_id": 1}


def token_ids(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randint(3, VOCABULARY, (batch, size), generator=generator)


def padding(batch: int, size: int) -> Tensor:
    """A mask whose last quarter is padding."""
    mask = torch.ones(batch, size, dtype=torch.long)
    mask[:, size - size // 4 :] = 0
    return mask


def ids_only(batch: int, size: int, generator: Generator) -> dict[str, Tensor]:
    return {"input_ids": token_ids(batch, size, generator)}


def ids_and_mask(batch: int, size: int, generator: Generator) -> dict[str, Tensor]:
    return {"input_ids": token_ids(batch, size, generator), "attention_mask": padding(batch, size)}


def ids_mask_types(batch: int, size: int, generator: Generator) -> dict[str, Tensor]:
    types = torch.zeros(batch, size, dtype=torch.long)
    types[:, size // 2 :] = 1
    return {**ids_and_mask(batch, size, generator), "token_type_ids": types}


def source_and_target(batch: int, size: int, generator: Generator) -> dict[str, Tensor]:
    target = token_ids(batch, size // 2, generator)
    return {**ids_and_mask(batch, size, generator), "decoder_input_ids": target}


def text_and_picture(batch: int, size: int, generator: Generator) -> dict[str, Tensor]:
    return {
        **ids_and_mask(batch, size, generator),
        "pixel_values": torch.randn(batch, 3, 64, 64, generator=generator),
    }


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(vocab_size=VOCABULARY, num_hidden_layers=4))


def bert_classifier() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, num_hidden_layers=4))


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForTokenClassification

    config = DistilBertConfig(vocab_size=VOCABULARY, dim=256, hidden_dim=1024, n_layers=3, n_heads=4)
    return DistilBertForTokenClassification(config)


def minilm() -> nn.Module:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12}
    config = BertConfig(vocab_size=VOCABULARY, num_hidden_layers=3, **sizes)
    return BertModel(config, add_pooling_layer=False)


def roberta() -> nn.Module:
    from transformers import RobertaConfig, RobertaModel

    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 3}
    return RobertaModel(RobertaConfig(vocab_size=VOCABULARY, max_position_embeddings=160, **sizes))


def modern_bert() -> nn.Module:
    from transformers import ModernBertConfig, ModernBertModel

    sizes = {"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4, "num_hidden_layers": 3}
    marks = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, **ENDS}
    return ModernBertModel(ModernBertConfig(vocab_size=VOCABULARY, **sizes, **marks))


def t5_encoder() -> nn.Module:
    from transformers import T5Config, T5EncoderModel

    sizes = {"d_model": 256, "d_kv": 64, "d_ff": 512, "num_layers": 3, "num_heads": 4}
    return T5EncoderModel(T5Config(vocab_size=VOCABULARY, feed_forward_proj="gated-gelu", **sizes))


def gpt_neox() -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXModel

    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 3}
    return GPTNeoXModel(GPTNeoXConfig(vocab_size=VOCABULARY, use_cache=False, **sizes))


def torch_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True)
    words = nn.Embedding(VOCABULARY, 256)
    return nn.Sequential(words, nn.TransformerEncoder(layer, 3, enable_nested_tensor=False))


def albert() -> nn.Module:
    from transformers import AlbertConfig, AlbertModel

    sizes = {"embedding_size": 64, "hidden_size": 256, "intermediate_size": 1024}
    return AlbertModel(
        AlbertConfig(vocab_size=VOCABULARY, num_hidden_layers=4, num_attention_heads=4, **sizes)
    )


def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 3, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, use_cache=False, **sizes))


def bart() -> nn.Module:
    from transformers import BartConfig, BartModel

    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512}
    return BartModel(BartConfig(vocab_size=VOCABULARY, d_model=128, use_cache=False, **heads, **layers))


def gpt2(use_cache: bool = False) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=VOCABULARY, n_embd=256, n_layer=4, n_head=4, use_cache=use_cache, **ENDS)
    return GPT2LMHeadModel(config)


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, use_cache=False, **sizes, **heads))


def clip() -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {
        **tower,
        "vocab_size": VOCABULARY,
        **ENDS,
        "eos_token_id": VOCABULARY - 1,
        "max_position_embeddings": 77,
    }
    picture = {**tower, "image_size": 64, "patch_size": 16}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=picture, projection_dim=64))


def line(name: str, make: object, inputs: object, **rest: object) -> Network:
    return Network(name, "transformers", make, inputs, (128, 96), sparsity=0.8, **rest)


NETWORKS = (
    line("BERT (4 layers)", bert, ids_only),
    line("BERT with mask and types", bert_classifier, ids_mask_types),
    line("DistilBERT tagger", distilbert, ids_and_mask),
    line("MiniLM (3 layers)", minilm, ids_and_mask),
    line("RoBERTa", roberta, ids_and_mask),
    line("ModernBERT", modern_bert, ids_and_mask),
    Network("torch's encoder", "torch", torch_encoder, token_ids, (128, 96), sparsity=0.8),
    line("ALBERT (one layer, 4 times)", albert, ids_and_mask),
    line("T5", t5, source_and_target),
    line("T5 encoder with gates", t5_encoder, ids_and_mask),
    line("BART", bart, source_and_target),
    line("GPT-2", gpt2, ids_only, kinds=("decoder",)),
    line("GPT-2 with its cache", lambda: gpt2(use_cache=True), ids_only, kinds=("decoder",)),
    line("GPT-NeoX", gpt_neox, ids_only, kinds=("decoder",)),
    line("Llama", llama, ids_and_mask, kinds=("decoder",)),
    Network("CLIP", "transformers", clip, text_and_picture, (32, 24), sparsity=0.8),
)
