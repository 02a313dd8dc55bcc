r"""Tunes classifiers on an encoder with the labels of a task, with Ray Tune, and scores them on
test videos.

    # simulated mice, this machine
    %(prog)s --encoder runs/mine --task classic_classification
    # a label set of your own, on hand-made features: no pretraining, the default heads
    %(prog)s --task S1 --data STORE
    # three labelled videos, pretrained encoder and the control with random weights
    %(prog)s --encoder runs/mine --task S1 --data STORE --videos 3
    %(prog)s --encoder none --task S1 --data STORE --videos 3
    # ten labelled minutes, as clips out of many videos
    %(prog)s --task S1 --data STORE --budget 10min
    # every label counts: scored by cross-validation, the model learns from all
    %(prog)s --task S1 --data STORE --folds 5
    # train the encoder as well as the head
    %(prog)s --encoder runs/mine --task S1 --data STORE --set frozen=false
    # kinds of a class of another label set
    %(prog)s --encoder runs/mine --task S2 --refines S1:aggression --data STORE
    # on a Ray cluster, from a checkout
    ray job submit --working-dir . -- python finetune/run.py --encoder /absolute/run --task S1 \
        --data /absolute/STORE

Leaves in --out: report.html, result.json, scores.txt, predictions/, model/ (with a card),
mlflow_model/, confusion.png, ethogram.png.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial

from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths

log = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/run.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--encoder",
        default="handmade",
        metavar="RUN|FOLDER|none|handmade",
        help="pretraining run or encoder folder; none: random weights; handmade "
        "(default): hand-made features",
    )
    parser.add_argument(
        "--task",
        required=True,
        help="label set of the store, classic_classification say; settings: finetune/tasks/",
    )
    parser.add_argument(
        "--refines",
        metavar="LABELSET:CLASS",
        help="the task tells the kinds of a class of another label set (S1:aggression): both are "
        "fitted together, P(act) = P(aggression) x P(act | aggression)",
    )
    parser.add_argument(
        "--data", help="pose store, a folder or s3://…; left out: a small simulated arena"
    )
    parser.add_argument("--test-data", metavar="STORE", help="score on this store's videos instead")
    parser.add_argument(
        "--scale", default="laptop", help="where: a name from ray_configs/ or a file (%(default)s)"
    )
    parser.add_argument("--out", help="folder of this run; left out: runs/finetune-…")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--budget",
        metavar="TIME",
        help="label budget: so much labelled time (10min, 90s, 1.5h), drawn with the seed as clips "
        "of 17 s spread over the training videos",
    )
    budget.add_argument(
        "--videos",
        type=int,
        metavar="N",
        help="label budget: N labelled videos, drawn with the seed",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="cross-validation over all labelled recordings, in K folds: scores are of predictions "
        "by fits that did not see the recording, the model learns from all labels; for stores "
        "without test videos, too",
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", help="trials of the search; 1: the settings as they are"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds scored on test")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the task or the scale, frozen=false, head.name=linear",
    )
    parser.add_argument(
        "--register",
        metavar="NAME[@ALIAS]",
        help="also make it a version of this model in MLflow's registry",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    args = parser.parse_args(words)

    # Ray and torch take seconds to import, which --help need not wait for.
    from finetune.fit.fit import initial_head
    from finetune.fit.open_encoder import HANDMADE, RANDOM, open_encoder, seen_in_words
    from finetune.labels.clips import labelled_minutes, parse_minutes
    from finetune.labels.folds import all_in_training, cross_validated_in_words
    from finetune.labels.problems import (
        ELSEWHERE,
        problems,
        refuse_unfit,
        with_some_test,
        with_test_of,
    )
    from finetune.labels.refine import with_parent
    from finetune.report.page.write import try_report
    from finetune.report.run_log import encoder_params, run_name
    from finetune.search.space import examples
    from finetune.search.tune import TuningJob, tune
    from finetune.settings import TASKS, Tuning, task_file
    from pretrain.cluster.join import cluster
    from pretrain.config import SCALES, Scale, parse_overrides, plain, read
    from pretrain.data.store import Store
    from pretrain.runs.folder import open_run_folder
    from pretrain.runs.mlflow_limits import check_registered_name
    from pretrain.runs.tracked_run import open_tracking

    check_registered_name(args.register)
    for_tuning, for_scale = parse_overrides(args.set, Tuning, Scale)
    for_tuning |= {
        key: value for key in ("trials", "seeds") if (value := getattr(args, key)) is not None
    }
    tuning, scale = (
        read(Tuning, task_file(args.task), TASKS, for_tuning),
        read(Scale, args.scale, SCALES, for_scale),
    )
    minutes = parse_minutes(args.budget) if args.budget else None
    if args.folds is not None and args.test_data:
        raise BadInput("--folds scores on the videos of --data: leave out --test-data")
    if args.encoder == HANDMADE and not tuning.frozen:
        raise BadInput("--encoder handmade has no weights to train: leave frozen=true")
    store = Store(paths.absolute_address(args.data) if args.data else paths.default_store())
    test_store = Store(paths.absolute_address(args.test_data)) if args.test_data else store
    asked = problems(store, args.task)
    choices = examples(tuning.search) if tuning.trials > 1 else ()
    possible = [tuning, *map(tuning.with_choice, choices)]
    # Such a head can label for an annotator without training labels.
    shared = all(one.head.get("annotator") == "embedding" for one in possible)
    if test_store is not store:
        asked = with_test_of(
            asked, problems(test_store, args.task), store, test_store, unknown_annotators=shared
        )
    trained = args.encoder not in (RANDOM, HANDMADE)
    if args.folds is None:
        asked, notes = with_some_test(asked, fps=store.schema.fps)
    else:
        sentence = cross_validated_in_words(args.folds, pretrained=trained)
        asked, notes = all_in_training(asked), [sentence]
    notes += refuse_unfit(asked, videos=args.videos, folds=args.folds, unknown_annotators=shared)
    if minutes is not None:
        there = {p.name: labelled_minutes(p.train, store.schema.fps) for p in asked}
        notes += [
            f"{name}: --budget {args.budget}, but {few:g} minutes are labelled: all are used"
            for name, few in there.items()
            if few < minutes
        ]
    if args.refines:
        asked = with_parent(asked, args.refines, partial(problems, store))
    for sentence in notes:
        log.warning("%s", sentence)
    embedder, about = open_encoder(
        paths.absolute_address(args.encoder) if trained else args.encoder,
        store,
        recipe=tuning.recipe,
        seed=tuning.first_seed,
        extra_features=tuning.extra_features,
        test={
            name.removesuffix(ELSEWHERE)
            for problem in asked
            for name in (problem.train if args.folds else problem.test)
        },
        fit_to_test=args.folds is not None,
        test_store=None if test_store is store else test_store,
    )
    if sentence := seen_in_words(about["saw_test"]):
        log.warning("%s", sentence)
        notes.append(sentence)
    for one in possible:  # settings that cannot be are refused here
        initial_head(asked, one, embedder.dim, fps=store.schema.fps)
    out = paths.run_folder(args.out, kind=f"finetune-{args.task}")

    settings = {
        "task": args.task,
        "encoder": about,
        "tuning": plain(tuning),
        "videos": args.videos,
        "fingerprint": store.fingerprint,
    } | {key: value for key in ("refines", "folds", "budget") if (value := getattr(args, key))}
    encoder = encoder_params(about, embedder)
    facts = {
        key: settings.get(key)
        for key in ("task", "refines", "videos", "folds", "budget", "fingerprint")
    }
    facts |= {"encoder": encoder}
    gpus = scale.gpus_per_trial if scale.gpu else 0
    opened = partial(open_tracking, scale.tracking, runs_folder=out.parent)
    with (
        open_run_folder(out, settings, resume=args.resume),
        cluster(scale, cpus_wanted=1, gpus_wanted=gpus, meanwhile=opened) as tracking,
        tracking.start(
            f"finetune {args.task}",
            run_name(encoder, args.budget or args.videos, out.name),
            params=facts,
            folder=out,
            resume=args.resume,
        ) as run,
    ):
        run.log_params({"search": tuning.search})
        run.log_dataset(store.origin or store.uri, store.fingerprint, store.uri)
        share = about["saw_test"]
        run.set_tags({"ethoray.encoder_saw_test": "unknown" if share is None else share})
        job = TuningJob(
            task=args.task,
            problems=asked,
            store=store,
            test_store=test_store,
            embedder=embedder,
            encoder=about,
            videos=args.videos,
            minutes=minutes,
            folds=args.folds,
            refines=args.refines,
            notes=notes,
        )
        result = tune(job, tuning, scale, out=out, run=run)
        if page := try_report(out):
            run.log_artifact(page)
        opener = "finetune.inference.served:label_table"
        run.log_model(out / "model", opener=opener, register=args.register)
    print(
        f"{(out / 'scores.txt').read_text(encoding='utf-8')}\nresult:   {out / 'result.json'}\n"
        f"pictures: {out / 'report.html'}, {out / 'confusion.png'}, {out / 'ethogram.png'}\n"
        f"macro F1 {result['macro_f1']:.3f} ± {result['macro_f1_std']:.3f}, MAP "
        f"{result['map']:.3f} ± {result['map_std']:.3f} "
        f"(chance {result['chance_map']:.3f})\ncompare runs: {tracking.ui_command(run.experiment)}"
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
