"""A transformer of two inputs, token ids and their mask: which of four phrases is in the sentence?"""

import torch
import torch.nn.functional as F
from torch import nn

PHRASES, LENGTH = torch.tensor([[1, 2, 3], [1, 3, 2], [2, 3, 1], [3, 2, 1]]), 16
random = torch.Generator().manual_seed(0)


def sentences(count):  # of 8 to 16 words; after the last one the ids are 0 and the mask is False
    ids, phrase = torch.randint(4, 40, (count, LENGTH), generator=random), torch.arange(count) % 4
    mask = torch.arange(LENGTH) < torch.randint(8, LENGTH + 1, (count, 1), generator=random)
    start = (torch.rand(count, 1, generator=random) * (mask.sum(1, keepdim=True) - 3)).long()
    return {"ids": ids.scatter(1, start + torch.arange(3), PHRASES[phrase]) * mask, "mask": mask}, phrase


splits = {name: sentences(count) for name, count in (("train", 2000), ("validation", 500), ("test", 500))}


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(40, 64), nn.Parameter(torch.randn(1, LENGTH, 64))
        self.query_key_value, self.out = nn.Linear(64, 192), nn.Linear(64, 64)
        self.wide, self.narrow, self.head = nn.Linear(64, 256), nn.Linear(256, 64), nn.Linear(64, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(64) for _ in range(2))

    def forward(self, ids, mask):  # (batch, words) each
        h = self.words(ids) + self.places[:, : ids.shape[1]]
        q, k, v = (part.unflatten(2, (4, 16)).transpose(1, 2) for part in self.query_key_value(h).chunk(3, 2))
        seen = F.scaled_dot_product_attention(q, k, v, mask[:, None, None])  # (batch, heads, words, 16)
        h = self.norms[0](h + self.out(seen.transpose(1, 2).flatten(2)))
        h = self.norms[1](h + self.narrow(F.gelu(self.wide(h))))
        return self.head((h * mask[..., None]).sum(1))


model = Transformer


def train(model, epochs=12):
    (inputs, phrase), optimizer = splits["train"], torch.optim.Adam(model.train().parameters(), lr=0.002)
    for rows in torch.cat([torch.randperm(len(phrase)) for _ in range(epochs)]).split(50):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs["ids"][rows], inputs["mask"][rows]), phrase[rows]).backward()
        optimizer.step()


def evaluate(model, split="validation"):
    with torch.no_grad():
        return (model.eval()(**splits[split][0]).argmax(1) != splits[split][1]).float().mean().item()


def batch():  # keywords of forward; a tuple for model(*batch) would do as well
    return {name: tensor[:16] for name, tensor in splits["validation"][0].items()}


def split_sizes():
    return {name: len(phrase) for name, (_, phrase) in splits.items()}
