"""Search for better settings of a recipe, and measure what was found on folds and seeds that the search did not see.

The folder of a search holds the trainings of its trials, ``trials.log``, where Optuna keeps the trials, ``tune.json``
with the figures, a report, and ``best.toml`` if a better recipe was found.
"""

from __future__ import annotations

import json
import logging
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kaggle_digits.analysis.engine import Engine
from kaggle_digits.analysis.html import write_page
from kaggle_digits.analysis.report import REPORT_FILE, TUNE_FILE, page_of_search
from kaggle_digits.analysis.settings import Setting, fields_of, to_toml, with_values
from kaggle_digits.analysis.validate import Pair, Validation, compare_pair, fold_pieces, validate_all
from kaggle_digits.data import TrainingRows, find_source, load_train
from kaggle_digits.errors import InputError, RunError, TrainingError
from kaggle_digits.files import atomic_path, locked, make_folder, write_json
from kaggle_digits.learners import Context
from kaggle_digits.recipe import Recipe, to_json
from kaggle_digits.run import RowCounts, Run, find_commit

log = logging.getLogger(__name__)

LOG_FILE, BEST_FILE = "trials.log", "best.toml"


def tune(
    recipe: Recipe,
    vary: Sequence[str],
    out: Path,
    *,
    data: str | None = None,
    trials: int = 40,
    folds: int = 5,
    seed: int = 0,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Search for settings of a recipe that read more digits right, and measure what was found.

    Optuna chooses the settings of each trial, and gives up trials whose first folds are worse than usual. The best few
    are cross-validated on other folds with other seeds, and the best of these is compared with the recipe that the
    search started from, on folds and seeds that nothing was chosen by. To continue a stopped search, repeat it.

    Args:
        recipe: what to start from.
        vary: which fields may vary and how, see ``Setting.parse``.
        out: the folder to write.
        data: where the data is, see ``data.find_source``.
        trials: how many settings to try.
        folds: parts of the rows, each of which is held out once.
        seed: the seed of the search. The seeds after it are those of the other folds.
        engine: trains the pieces, see ``cluster.open_engine``; None trains them here, one after another. The more at a
            time, the less the search knows when it chooses.

    Returns:
        the contents of tune.json.

    Raises:
        InputError: Optuna is not installed, or a field is unknown or forbids its values.
        RunError: the folder holds another search.
        TrainingError: a training failed.
    """
    if recipe.members:
        raise InputError(f"{recipe.name}: an ensemble cannot be tuned. Expected one of its members.")
    settings = [Setting.parse(text, recipe) for text in vary]
    engine = engine or Engine()
    engine.find_devices([recipe])
    for setting in settings:
        for value in setting.values:
            with_values(recipe, {setting: value}, "tried")
    source = find_source(data)
    rows = load_train(source)
    context = Context(seed=seed, source=source.name_for(out))
    search = _Search(recipe, settings, out, folds, context, engine, rows)
    make_folder(out)
    with locked(out, RunError(f"{out}: is being written by another search. Expected a folder for each. Name another.")):
        study = search.open_study()
        while (missing := trials - sum(trial.state.is_finished() for trial in study.trials)) > 0:
            search.advance(study, missing)
        few = search.validate("few", search.best_few(study), seed=seed + 1, repeat=1)
        winner = max(few, key=lambda validation: validation.fields["accuracy"])
        start, best = search.validate("fresh", [recipe, winner.recipe], seed=seed + 2, repeat=2)
        pair = compare_pair((best.recipe.name, best.right), (start.recipe.name, start.right))
        fields = search.summary(study, few, [start, best], pair)
        if fields["is_better"]:
            with atomic_path(out / BEST_FILE) as path:
                path.write_text(to_toml(best.recipe), encoding="utf-8")
        write_json(out / TUNE_FILE, fields)
        write_page(out / REPORT_FILE, page_of_search(out))
    return fields


@dataclass(frozen=True)
class _Search:
    """What a search starts from, and where it trains. Its context has the seed of its folds."""

    recipe: Recipe
    settings: Sequence[Setting]
    out: Path
    folds: int
    context: Context
    engine: Engine
    rows: TrainingRows

    def open_study(self) -> Any:
        """Open the study in the folder, or make one whose first trial is the recipe to start from.

        Raises:
            RunError: the folder holds another search.
        """
        optuna = _import_optuna()
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(self.out / LOG_FILE)))
        options = {"study_name": "tune", "storage": storage, "pruner": optuna.pruners.MedianPruner()}
        if "tune" in optuna.get_all_study_names(storage):
            study = optuna.load_study(**options)
        else:
            study = optuna.create_study(direction="maximize", **options)
        described = {
            "recipe": self.recipe.settings(),
            "vary": [asdict(setting) for setting in self.settings],
            "folds": self.folds,
            "seed": self.context.seed,
            "rows": asdict(RowCounts.of(self.rows, None)),
        }
        described = json.loads(json.dumps(described))
        if study.user_attrs.get("search", described) != described:
            raise RunError(
                f"{self.out}: holds a search with another recipe, other settings, rows or folds. Expected the same "
                "ones. Name another folder."
            )
        if not study.trials:
            study.set_user_attr("search", described)
            fields = dict(fields_of(to_json(self.recipe)))
            study.enqueue_trial({setting.name: fields[setting.name][1] for setting in self.settings})
        return study

    def advance(self, study: Any, most: int) -> None:
        """Finish the trials that a stopped search has left, or else begin as many as are trained at the same time."""
        optuna = _import_optuna()
        running = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.RUNNING]
        trials = [optuna.trial.Trial(study, trial._trial_id) for trial in running]
        while not running and len(trials) < min(most, self.engine.width):
            # Seeded anew for each trial, so that a search that was stopped chooses as if it had not been.
            seed = self.context.seed + len(study.trials)
            study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=self.engine.width > 1)
            trials.append(study.ask())
        recipes = {}
        for trial in trials:
            values = {setting: setting.suggest(trial) for setting in self.settings}
            twins = [other for other in study.trials if other.params == trial.params and other.value is not None]
            if twins:
                study.tell(trial, twins[0].value)
            else:
                recipes[trial] = with_values(self.recipe, values, f"{self.recipe.name}-trial-{trial.number + 1}")
        runs: dict[Any, list[Run]] = {trial: [] for trial in recipes}
        for fold in range(self.folds):
            pieces = {
                trial: fold_pieces(
                    recipe,
                    self.out / "trials" / str(trial.number + 1),
                    self.folds,
                    context=replace(self.context, device=self.engine.find_device(recipe)),
                )[fold]
                for trial, recipe in recipes.items()
            }
            for trial, run in zip(pieces, self.engine.train([*pieces.values()], self.rows), strict=True):
                if isinstance(run, Exception):
                    log.error("Trial %d failed: %s", trial.number + 1, run)
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    del recipes[trial]
                    continue
                runs[trial].append(run)
                mean = statistics.mean(each.accuracy or 0.0 for each in runs[trial])
                if fold not in study.trials[trial.number].intermediate_values:  # else a stopped search reported it
                    trial.report(mean, fold)
                trial.set_user_attr("seconds", sum(each.seconds + each.validation_seconds for each in runs[trial]))
                log.info("Trial %d, fold %d of %d: %.3f%%", trial.number + 1, fold + 1, self.folds, 100 * mean)
                if fold + 1 == self.folds:
                    study.tell(trial, mean)
                elif trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    del recipes[trial]

    def best_few(self, study: Any) -> list[Recipe]:
        """Return the best recipes of the search, without the one that it started from.

        Raises:
            TrainingError: there is none.
        """
        finished = [trial for trial in study.trials[1:] if trial.state.name == "COMPLETE"]
        distinct = {json.dumps(trial.params): trial for trial in sorted(finished, key=lambda trial: trial.value)}
        distinct.pop(json.dumps(study.trials[0].params), None)
        if not distinct:
            raise TrainingError(
                f"{self.out}: every trial failed, or is the recipe that the search started from. Expected one that is "
                "not. Try more with --trials, or other values with --vary."
            )
        few = sorted(distinct.values(), key=lambda trial: (-trial.value, trial.number))[:3]
        return [
            with_values(
                self.recipe,
                {setting: trial.params[setting.name] for setting in self.settings},
                f"{self.recipe.name}-trial-{trial.number + 1}",
            )
            for trial in few
        ]

    def validate(self, where: str, recipes: Sequence[Recipe], *, seed: int, repeat: int) -> list[Validation]:
        """Cross-validate recipes on the folds of another seed."""
        named = {self.out / where / recipe.name: recipe for recipe in recipes}
        context = replace(self.context, seed=seed)
        return validate_all(named, lambda: self.rows, self.engine, folds=self.folds, repeat=repeat, context=context)

    def summary(self, study: Any, few: Sequence[Validation], fresh: Sequence[Validation], pair: Pair) -> dict[str, Any]:
        """Return the contents of tune.json."""
        optuna = _import_optuna()
        trials = [
            {
                "trial": trial.number + 1,
                "values": trial.params,
                "accuracy": trial.value,
                "state": trial.state.name.lower(),
                "folds": len(trial.intermediate_values),
                "seconds": round(trial.user_attrs.get("seconds", 0), 1),
            }
            for trial in study.trials
        ]
        complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        matters = len(self.settings) > 1 and len({trial.value for trial in complete}) > 3
        return {
            "recipe": self.recipe.name,
            "data": self.context.source,
            "rows": len(self.rows),
            "folds": self.folds,
            "seed": self.context.seed,
            "trials": trials,
            "importances": optuna.importance.get_param_importances(study) if matters else {},
            "few": [{"recipe": found.recipe.name, "accuracy": found.fields["accuracy"]} for found in few],
            "fresh": [{"recipe": each.recipe.name, "accuracy": each.fields["accuracy"]} for each in fresh],
            "fewer_mistakes": pair.difference * len(self.rows),
            "standard_error": pair.standard_error * len(self.rows),
            "p": pair.p,
            "is_better": pair.difference > 0 and pair.p < 0.05,
            "search_seconds": round(sum(trial["seconds"] for trial in trials), 1),
            "fresh_seconds": round(sum(each.fields["seconds"] for each in (*few, *fresh)), 1),
            "commit": find_commit(),
        }


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "optuna is not installed, and tune needs it. Install the extra tune, or what it consists of: pip install "
            "optuna tomli-w"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    return optuna
