// Shards as tasks of Nextflow, and the task that finishes them.
//   nextflow run docs/clusters/main.nf --workflow $PWD/workflows/quickstart.toml \
//     --results $PWD/results/quickstart --shards 4
// Absolute paths, as each task has a folder of its own. On a cluster: -process.executor slurm

params.shards = 16

process shard {
    memory '4 GB'
    time '2h'
    errorStrategy 'retry'  // 75, "continue me", too: the next try goes on from there
    maxRetries 3

    input:
    val k

    output:
    val k

    script:
    """
    cellseg run '${params.workflow}' --output '${params.results}' --engine local --shard ${k}/${params.shards}
    """
}

process finish {
    memory '4 GB'
    time '2h'

    input:
    val shards

    script:
    """
    cellseg finish '${params.results}' --engine local --wait
    """
}

workflow {
    finish(shard(Channel.of(1..(params.shards as int))).collect())
}
