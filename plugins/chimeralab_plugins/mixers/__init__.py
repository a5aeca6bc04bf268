"""First-party mixers."""

from chimeralab import Mixer, hookimpl
from chimeralab_plugins.mixers.aft import AFT
from chimeralab_plugins.mixers.attention import Attention
from chimeralab_plugins.mixers.base_conv import BaseConv
from chimeralab_plugins.mixers.based import Based
from chimeralab_plugins.mixers.bidirectional_attention import BidirectionalAttention
from chimeralab_plugins.mixers.delta_net import DeltaNet
from chimeralab_plugins.mixers.delta_product import DeltaProduct
from chimeralab_plugins.mixers.gated_delta_net import GatedDeltaNet
from chimeralab_plugins.mixers.gla import GLA
from chimeralab_plugins.mixers.gru import GRU
from chimeralab_plugins.mixers.h3 import H3
from chimeralab_plugins.mixers.heads import Heads
from chimeralab_plugins.mixers.hgrn import HGRN
from chimeralab_plugins.mixers.hgrn2 import HGRN2
from chimeralab_plugins.mixers.hourglass import Hourglass
from chimeralab_plugins.mixers.hyena import Hyena
from chimeralab_plugins.mixers.identity import Identity
from chimeralab_plugins.mixers.infini_attention import InfiniAttention
from chimeralab_plugins.mixers.kda import KDA
from chimeralab_plugins.mixers.lightning import Lightning
from chimeralab_plugins.mixers.linear_attention import LinearAttention
from chimeralab_plugins.mixers.lru import LRU
from chimeralab_plugins.mixers.lssl import LSSL
from chimeralab_plugins.mixers.lstm import LSTM
from chimeralab_plugins.mixers.mamba import Mamba
from chimeralab_plugins.mixers.mamba2 import Mamba2
from chimeralab_plugins.mixers.min_gru import MinGRU
from chimeralab_plugins.mixers.mla import MLA
from chimeralab_plugins.mixers.mlstm import MLSTM
from chimeralab_plugins.mixers.mlstm_up import MLSTMUp
from chimeralab_plugins.mixers.monarch import MonarchMixer
from chimeralab_plugins.mixers.neighborhood_attention import NeighborhoodAttention
from chimeralab_plugins.mixers.parallel import Parallel
from chimeralab_plugins.mixers.qrnn import QRNN
from chimeralab_plugins.mixers.retention import Retention
from chimeralab_plugins.mixers.rg_lru import RGLRU
from chimeralab_plugins.mixers.rnn import RNN
from chimeralab_plugins.mixers.rwkv4 import RWKV4
from chimeralab_plugins.mixers.rwkv5 import RWKV5
from chimeralab_plugins.mixers.rwkv6 import RWKV6
from chimeralab_plugins.mixers.rwkv7 import RWKV7
from chimeralab_plugins.mixers.s4 import S4
from chimeralab_plugins.mixers.s4d import S4D
from chimeralab_plugins.mixers.s5 import S5
from chimeralab_plugins.mixers.short_conv import Lfm2Conv, ShortConv
from chimeralab_plugins.mixers.slstm import SLSTM
from chimeralab_plugins.mixers.vision_mamba import VisionMamba


@hookimpl
def register_mixers() -> list[type[Mixer]]:
    return [
        Attention,
        MLA,
        BidirectionalAttention,
        NeighborhoodAttention,
        InfiniAttention,
        AFT,
        Mamba,
        Mamba2,
        S4,
        S4D,
        S5,
        LSSL,
        H3,
        VisionMamba,
        LinearAttention,
        GLA,
        Based,
        Retention,
        Lightning,
        HGRN2,
        MLSTM,
        MLSTMUp,
        RWKV5,
        RWKV6,
        DeltaNet,
        GatedDeltaNet,
        KDA,
        DeltaProduct,
        RWKV7,
        LRU,
        RGLRU,
        HGRN,
        MinGRU,
        QRNN,
        SLSTM,
        LSTM,
        GRU,
        RNN,
        RWKV4,
        Hyena,
        MonarchMixer,
        BaseConv,
        ShortConv,
        Lfm2Conv,
        Parallel,
        Heads,
        Hourglass,
        Identity,
    ]
