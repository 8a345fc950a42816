#!/bin/bash
# A training on several nodes without a scheduler: start it on every node, with the same arguments.
#   NODES=2 DEVICES=4 FIRST=10.0.0.1:29500 bash configs/cluster/torchrun.sh --config configs/folder/energy_unet.yaml
# FIRST is a host and a free port of one of the nodes. The run folder lies on a file system that all
# nodes share. To stop the training, send SIGTERM to torchrun on any one node: all finish the step at
# hand, the last checkpoint is written, and the same commands go on from it. torchrun kills its processes
# 30 seconds after the signal, and reports their exit code 143 as a failure.
set -eu
exec torchrun \
  --nnodes "${NODES:-1}" \
  --nproc-per-node "${DEVICES:-1}" \
  --rdzv-backend c10d \
  --rdzv-endpoint "${FIRST:-127.0.0.1:29500}" \
  --rdzv-id "${RUN:-energydiff}" \
  -m energydiff fit "$@" \
  --trainer.num_nodes "${NODES:-1}" \
  --trainer.devices "${DEVICES:-1}" \
  --trainer.strategy ddp
