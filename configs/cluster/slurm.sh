#!/bin/bash
# A training on two nodes of four GPUs under SLURM, that goes on in a new job when its time is over:
#   sbatch configs/cluster/slurm.sh --config configs/folder/energy_unet.yaml --trainer.default_root_dir runs/big
# What follows the script are arguments of energydiff fit. Run it where the run folder lies, on a file
# system that all nodes share.
#SBATCH --job-name=energydiff
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
# SIGUSR1 to every task two minutes before the end: the step at hand is finished, the last checkpoint
# written, and the job put back into the queue. Allow for the longest look of the monitors.
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

# One task for each GPU; Lightning takes rank and addresses from SLURM. A task that fails ends all.
srun --kill-on-bad-exit=1 energydiff fit "$@" \
  --trainer.num_nodes "$SLURM_NNODES" \
  --trainer.devices "$SLURM_NTASKS_PER_NODE" \
  --trainer.strategy ddp
