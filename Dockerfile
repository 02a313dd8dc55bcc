# Ethoray with all it needs; in the checkout:
#   docker build -t ethoray .        for a laptop, without a GPU
#   docker run --rm --shm-size=2g -v "$PWD:/data" -w /data ethoray predict --model runs/task1 --poses new/
# The image of kuberay_cluster.yaml and kuberay_job.yaml:
#   docker build --target cluster --build-arg KIND=gpu --build-arg TORCH= \
#     -t registry.example/ethoray:0.1.0 .
# Ray's own image has its version's Ray and the user `ray`; constraints.txt has the same version.
ARG KIND=cpu
FROM rayproject/ray:2.60.0-py311-${KIND} AS cluster
# Where torch without CUDA is; empty: torch as it comes, with CUDA.
ARG TORCH=https://download.pytorch.org/whl/cpu
COPY --chown=ray:users . /home/ray/ethoray
WORKDIR /home/ray/ethoray
RUN pip install --no-cache-dir -c constraints.txt ${TORCH:+--find-links ${TORCH}/torch/} torch \
 && pip install --no-cache-dir -c constraints.txt -e '.[trackers,share,video]'
ENV RAY_USAGE_STATS_ENABLED=0

FROM cluster AS laptop
ENTRYPOINT ["ethoray"]
CMD ["--help"]
