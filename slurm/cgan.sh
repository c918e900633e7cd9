#!/bin/bash
# Train the conditional GAN: sbatch [--nodes=4] [--gpus-per-node=8] slurm/cgan.sh [--train.steps 20000 ...]
#SBATCH --job-name=cgan
#SBATCH --nodes=1
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
exec "${COLORDIST_HOME:-$SLURM_SUBMIT_DIR}/slurm/train.sh" --config configs/cgan.yaml "$@"
