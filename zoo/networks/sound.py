"""Networks that read sound."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from zoo.network import Network


def samples(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, size, generator=generator)


def one_channel(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, 1, size, generator=generator)


def mel(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, 80, size, generator=generator)


def frames(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, 1, size, 40, generator=generator)


def features(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, size, 40, generator=generator)


def whisper() -> nn.Module:
    from transformers import WhisperConfig, WhisperModel

    config = WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, max_source_positions=500)
    config.encoder_ffn_dim, config.decoder_layers = 1536, 1
    return WhisperModel(config).encoder


def wav2vec() -> nn.Module:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
    return Wav2Vec2Model(Wav2Vec2Config(conv_dim=(256,) * 7, **sizes))


def encodec() -> nn.Module:
    from transformers import EncodecConfig, EncodecModel

    return EncodecModel(EncodecConfig(num_filters=16, hidden_size=64)).encoder


def conv_tasnet() -> nn.Module:
    from torchaudio.models import ConvTasNet

    mask = {"msk_num_feats": 64, "msk_num_hidden_feats": 128, "msk_num_layers": 4, "msk_num_stacks": 2}
    return ConvTasNet(enc_num_feats=256, **mask)


def wav2letter() -> nn.Module:
    from torchaudio.models import Wav2Letter

    return Wav2Letter(num_classes=40, input_type="mfcc", num_features=80)


def deep_speech() -> nn.Module:
    from torchaudio.models import DeepSpeech

    return DeepSpeech(n_feature=40, n_hidden=256, n_class=29)


def wave_rnn() -> nn.Module:
    from torchaudio.models import WaveRNN

    sizes = {"n_rnn": 128, "n_fc": 128, "n_freq": 40, "n_hidden": 64, "n_output": 64}
    return WaveRNN(upsample_scales=[2, 2, 2], n_classes=64, hop_length=8, n_res_block=2, **sizes)


def wave_and_spectrum(batch: int, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    waveform = torch.rand(batch, 1, (size - 4) * 8, generator=generator) * 2 - 1
    return waveform, torch.randn(batch, 1, 40, size, generator=generator)


def squim() -> nn.Module:
    from torchaudio.models import squim_objective_model

    return squim_objective_model(
        feat_dim=64,
        win_len=64,
        d_model=32,
        nhead=4,
        hidden_dim=64,
        num_blocks=1,
        rnn_type="LSTM",
        chunk_size=20,
    )


def crdnn() -> nn.Module:
    import speechbrain as sb
    from speechbrain.lobes.models.CRDNN import CRDNN

    rnn = {"rnn_class": sb.nnet.RNN.LSTM, "rnn_layers": 2, "rnn_neurons": 128}
    return CRDNN(input_size=40, cnn_channels=[32, 64], dnn_neurons=256, **rnn)


def ecapa() -> nn.Module:
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    return ECAPA_TDNN(40, channels=[256, 256, 256, 256, 768], lin_neurons=192)


SOUND, BOTH = ("sound",), ("sound", "recurrent")
NETWORKS = (
    Network(
        "Whisper encoder",
        "transformers",
        whisper,
        mel,
        (1000, 1000),
        sparsity=0.8,
        fixed="the network takes spectra of one length",
        kinds=SOUND,
    ),
    Network("Wav2Vec2", "transformers", wav2vec, samples, (16000, 12000), sparsity=0.8, kinds=SOUND),
    Network("Encodec encoder", "transformers", encodec, one_channel, (4800, 3200), kinds=BOTH),
    Network("Conv-TasNet", "torchaudio", conv_tasnet, one_channel, (8000, 6000), kinds=SOUND),
    Network("Wav2Letter", "torchaudio", wav2letter, mel, (200, 160), kinds=SOUND),
    Network("ECAPA-TDNN", "speechbrain", ecapa, features, (200, 160), kinds=SOUND),
    Network("DeepSpeech", "torchaudio", deep_speech, frames, (64, 48), kinds=BOTH),
    Network("WaveRNN", "torchaudio", wave_rnn, wave_and_spectrum, (14, 12), kinds=BOTH),
    Network("SQUIM (LSTM)", "torchaudio", squim, samples, (8000, 6000), kinds=BOTH),
    Network("CRDNN (LSTM)", "speechbrain", crdnn, features, (64, 48), kinds=BOTH),
)
