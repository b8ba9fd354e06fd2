"""The tree-LSTM of the ListOps experiments in PyTorch, in the published layout (facts: Choi, Yoo & Lee 2018; Fan et al. 2022).

Every level composes *all* neighbouring pairs, shifts by cumulative sums of the choice, and keeps finished sentences by a mask.
Parameter names are those of our checkpoints. Shapes: B sentences, n nodes at a level, H width.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Encoder(nn.Module):
    def __init__(self, embedding, hidden):
        super().__init__()
        self.hidden = hidden
        self.leaf_rnn_cell = nn.LSTMCell(embedding, hidden)
        self.treelstm_layer = nn.ModuleDict({"comp_linear": nn.Linear(2 * hidden, 5 * hidden)})
        self.comp_query = nn.Parameter(torch.randn(hidden) * 0.01)

    def leaves(self, words):
        """[B, T, E] -> h, c [B, T, H], each"""
        h = c = words.new_zeros(words.shape[0], self.hidden)
        hs, cs = [], []
        for t in range(words.shape[1]):
            h, c = self.leaf_rnn_cell(words[:, t], (h, c))
            hs.append(h)
            cs.append(c)
        return torch.stack(hs, 1), torch.stack(cs, 1)

    def cell(self, h, c):
        gates = self.treelstm_layer["comp_linear"](torch.cat([h[:, :-1], h[:, 1:]], dim=2))
        i, left, right, u, o = gates.chunk(5, dim=2)
        c = (left + 1).sigmoid() * c[:, :-1] + (right + 1).sigmoid() * c[:, 1:] + u.tanh() * i.sigmoid()
        return o.sigmoid() * c.tanh(), c

    def forward(self, words, lengths, draw):
        """`draw`: logits [B, n] with -inf where there is no pair -> one-hot [B, n]; None takes the best pair."""
        h, c = self.leaves(words)
        longest = words.shape[1]
        inside = torch.arange(longest)[None, :] < lengths[:, None]
        for level in range(longest - 1):
            new_h, new_c = self.cell(h, c)
            if level < longest - 2:
                scores = (new_h * self.comp_query).sum(-1) / math.sqrt(self.hidden)
                mask = inside[:, level + 1 :]
                # as published: a finished sentence has every pair
                scores = scores.masked_fill(~mask & mask.any(1, keepdim=True), -math.inf)
                scores = torch.where(mask.any(1, keepdim=True), scores, torch.ones_like(scores))
                chosen = F.one_hot(scores.argmax(1), scores.shape[1]).to(h.dtype) if draw is None else draw(scores)
                sums = chosen.cumsum(1)
                take, stay = chosen.unsqueeze(2), (1 - sums).unsqueeze(2)
                shift = torch.cat([torch.zeros_like(sums[:, :1]), sums[:, :-1]], 1).unsqueeze(2)
                new_h = take * new_h + stay * h[:, :-1] + shift * h[:, 1:]
                new_c = take * new_c + stay * c[:, :-1] + shift * c[:, 1:]
            going = inside[:, level + 1].to(h.dtype)[:, None, None]
            h = going * new_h + (1 - going) * h[:, :-1]
            c = going * new_c + (1 - going) * c[:, :-1]
        return h.squeeze(1)


class TreeLstm(nn.Module):
    def __init__(self, vocabulary, embedding=300, hidden=300, classes=10, dropout=0.5):
        super().__init__()
        self.word_embedding = nn.Embedding(vocabulary, embedding)
        self.encoder = Encoder(embedding, hidden)
        self.classifier = nn.ModuleDict(
            {"mlp": nn.ModuleList([nn.ModuleList([nn.Linear(hidden, hidden)])]), "clf_linear": nn.Linear(hidden, classes)}
        )
        self.dropout = dropout

    def forward(self, ids, lengths, draw=None):
        drop = lambda x: F.dropout(x, self.dropout, self.training)
        root = self.encoder(drop(self.word_embedding(ids)), lengths, draw)
        return self.classifier["clf_linear"](drop(F.relu(self.classifier["mlp"][0][0](drop(root)))))
