"""Pretraining by distillation from stored teacher outputs, as TinyViT does it: Wu et al. 2022, arXiv:2207.10666.

Several stored views per image, as in Dataset Reinforcement: Faghri et al. 2023, arXiv:2303.08983.

  images ─ sources ─┐                                      ┌─ checking   do the records still come out?
                    ├─ augmentation (image, seed) → view ──┤
  records (header) ─┘         │                            │
                              ├─ recording: teacher → shards
                              └─ loading: view + its record → train: student, checkpoint
"""
