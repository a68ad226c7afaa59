"""What ``nazx eval`` compares, made of its options, and the run of it all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nazx_cli.cli.judge import table as eval_table
from nazx_cli.cli.judge.command import EvalAnswers, EvalModels, EvalOptions
from nazx_cli.cli.shared.opening import models_of
from nazx_cli.cli.shared.options import ModelOptions
from nazx_cli.config import ModelConfig
from nazx_cli.errors import NazxError, UsageError
from nazx_cli.evaluation.approximations import approximation_of
from nazx_cli.evaluation.approximations.base import Approximation, check
from nazx_cli.evaluation.approximations.cost import Cost
from nazx_cli.evaluation.contestants.base import Contestant, code_identity, fingerprint
from nazx_cli.evaluation.contestants.extracts import EXTRACTS, ExtractContestant, PassagesContestant
from nazx_cli.evaluation.contestants.nazx import NazxContestant, Shelf
from nazx_cli.evaluation.contestants.peers import FIRST, PASSAGES, Engine, PeerContestant
from nazx_cli.evaluation.data.given import AUTO, BOOK, FOLDER, SECTION, STORY
from nazx_cli.evaluation.perplexity import Before, Stretch, differences, read_through
from nazx_cli.evaluation.probes import Outcome, probe
from nazx_cli.evaluation.records import AnswerFile, Record
from nazx_cli.evaluation.report import make_report
from nazx_cli.evaluation.runner import Progress, Run, evaluate
from nazx_cli.names import OnProgress
from nazx_cli.ui.terminal.lines import roughly

if TYPE_CHECKING:
    from nazx_cli.documents.document import Document
    from nazx_cli.engine.language_model import LanguageModel
    from nazx_cli.evaluation.data.stories import Story
    from nazx_cli.session.settings import SessionSettings
    from nazx_cli.ui.terminal.screen import Screen

_TOLD_EVERY = 30.0  # seconds between lines of progress where no bar can be drawn
_STRETCH = 1024  # tokens that perplexity is measured over where --ctx does not say
_TRIALS = 20  # of a probe at each length and depth where --limit does not say
_GIVEN = {
    SECTION: "right section given",
    STORY: "whole story",
    BOOK: "all stories in one book",
    FOLDER: "all stories as files of a folder",
}
WAYS = {
    "transformers": ("transformers", PASSAGES),
    "transformers-first": ("transformers", FIRST),
    "llama.cpp": ("llama.cpp", PASSAGES),
    "llama.cpp-first": ("llama.cpp", FIRST),
}


class Evaluation:
    """Asks all that the options ask for; what is there when it is cut short is kept."""

    def __init__(
        self,
        models: EvalModels,
        answers: EvalAnswers,
        options: EvalOptions,
        screen: Screen,
        beside: Sequence[Document] = (),
    ) -> None:
        self._options = options
        self._beside = beside
        self._answers = answers
        self._screen = screen
        self._settings = answers.each()  # first: a wrong value should not wait for a model
        self._models = [self._shelf(each) for each in models.each()]
        self._approximations = self._asked_approximations()
        self._costs: list[Cost] = []
        self._answered: list[tuple[Run, Record]] = []
        self._stretches: list[Stretch] = []
        self._outcomes: list[Outcome] = []

    def run(self, stories: Sequence[Story], texts: Sequence[tuple[str, str]]) -> bool:
        """Ask everything; False where Ctrl-C came first."""
        if stories and self._approximations:
            raise UsageError("--approximation asks no questions", "add --perplexity or --probe")
        with AnswerFile(self._options.answers) as file, _Teller(self._screen, file) as teller:
            try:
                if stories:
                    self._ask(stories, file, teller)
                if texts and self._options.probe:
                    self._probe("\n\n".join(text for _, text in texts), file, teller)
                elif texts:
                    self._read(texts, file, teller)
            except KeyboardInterrupt:
                teller.stop()
                kept = self._options.answers
                more = f"; the same command goes on from {kept}" if kept else ""
                self._screen.note(f"interrupted after {len(self._answered):,} answers{more}")
                return False
            teller.tell_found()
        return True

    def show(self, complete: bool) -> None:
        """The tables, or JSON."""
        options, screen = self._options, self._screen
        columns = make_report(self._answered, options.by)
        costs = [each.measured([*self._stretches, *self._outcomes]) for each in self._costs]
        if options.json:
            runs = [column.to_dict() for column in columns]
            named = eval_table.by_model(self._stretches, names=True)
            texts = [
                {
                    "model": name,
                    "ranges": [each.to_dict() for each in ranges],
                    "names": [each.to_dict() for each in named[name]],
                }
                for name, ranges in eval_table.by_model(self._stretches).items()
            ]
            maps = eval_table.probe_maps(self._outcomes)
            apart = [each.to_dict() for each in differences(self._stretches)]
            data = {"complete": complete, "runs": runs, "perplexity": texts, "probes": maps}
            data["perplexity_differences"] = apart
            of_names = differences(self._stretches, names=True)
            data["name_differences"] = [each.to_dict() for each in of_names]
            data["costs"] = [each.to_dict() for each in costs]
            screen.data(data)
            return
        if columns or not (self._stretches or self._outcomes):
            eval_table.show(columns, screen, options.by)
        eval_table.show_perplexity(self._stretches, screen)
        eval_table.show_probes(self._outcomes, screen)
        eval_table.show_costs(costs, screen)

    def _ask(self, stories: Sequence[Story], file: AnswerFile, teller: _Teller) -> None:
        planned = list(self._runs())
        shelves = {id(run): shelf for shelf, run in planned}
        at_work: list[Shelf] = []

        def change(run: Run) -> None:
            shelf = shelves[id(run)]
            while at_work and at_work[-1] is not shelf:
                at_work.pop().close()  # one model in memory at a time
            if not at_work:
                at_work.append(shelf)

        runs = [run for _, run in planned]
        for each in evaluate(runs, stories, file, teller.update, change, self._beside):
            self._answered.append(each)  # one by one: what is there when Ctrl-C comes is kept
        for shelf in at_work:
            shelf.close()

    def _read(self, texts: Sequence[tuple[str, str]], file: AnswerFile, teller: _Teller) -> None:
        length = self._answers.ctx or _STRETCH
        for shelf, label, run, approximation in self._each(length):
            for before in self._befores():
                name, same = label, run
                if before is not None:
                    shelf.lm.attend_far(before.source != "none")
                    if approximation and before.source == "none":
                        continue  # nothing that it could be of
                    of = {"none": "nothing", "own": f"{before.tokens:,} tokens"}
                    resident = of.get(before.source, f"{before.tokens:,} of another text's")
                    name, same = f"{name}, {resident} before", fingerprint({run: repr(before)})
                self._cost(name, shelf, approximation, length, before)
                for stretch in read_through(
                    name,
                    same,
                    shelf.lm,
                    texts,
                    file,
                    length=length,
                    stretches=self._options.limit,
                    before=before,
                    approximation=approximation,
                    on_progress=teller.telling(f"{name}, perplexity"),
                ):
                    self._stretches.append(stretch)

    def _befores(self) -> list[Before | None]:
        """What is resident before stretches, side by side."""
        tokens = self._options.before
        if tokens is None:
            return [None]
        return [
            Before(tokens, each) for each in dict.fromkeys(self._options.before_from or ["own"])
        ]

    def _probe(self, text: str, file: AnswerFile, teller: _Teller) -> None:
        longest = self._answers.ctx or _STRETCH
        for shelf, name, same, approximation in self._each(longest):
            resident = self._answers.read == ["resident"]
            shelf.lm.attend_far(resident)
            self._cost(name, shelf, approximation, longest)
            run = fingerprint({same: "resident"}) if resident else same
            for outcome in probe(
                name,
                run,
                shelf.lm,
                self._options.probe or (),
                text,
                file,
                longest=longest,
                trials=self._options.limit or _TRIALS,
                seed=self._answers.seed or 0,
                resident=resident,
                approximation=approximation,
                on_progress=teller.telling(f"{name}, probes"),
            ):
                self._outcomes.append(outcome)

    def _each(self, length: int) -> Iterator[tuple[Shelf, str, str, Approximation | None]]:
        """Each model as it is, then by each approximation, with its label and the fingerprint of
        what is measured of it alone."""
        for shelf, options in self._models:
            values = {
                "model": shelf.identity,
                "how": repr(options),
                "length": length,
                "code": code_identity(),
            }
            run = fingerprint(values)
            if not self._approximations:
                yield shelf, shelf.name, run, None
            else:
                for way in (None, *self._approximations):
                    label = f"{shelf.name}, {way or 'exact'}"
                    same = fingerprint({run: str(way)}) if way else run
                    yield shelf, label, same, way
            shelf.close()

    def _cost(
        self,
        name: str,
        shelf: Shelf,
        way: Approximation | None,
        length: int,
        before: Before | None = None,
    ) -> None:
        """Where approximations are compared, tell of what ``name`` holds: of what is before, where
        something is."""
        if not self._approximations:
            return
        far = before is not None and before.source != "none"
        length = before.tokens if before is not None and far else length
        self._costs.append(Cost.of(name, shelf.lm, way, length, far=far))

    def _asked_approximations(self) -> tuple[Approximation, ...]:
        """Those that the options name; ``UsageError`` where they, or a model, cannot be had so."""
        found = tuple(map(approximation_of, dict.fromkeys(self._options.approximation or ())))
        if found and self._answers.read:
            raise UsageError("approximations know no --read", "name what is resident by --before")
        for shelf, _ in self._models if found and not self._options.before else ():
            check(ModelConfig.from_folder(shelf.folder), self._answers.ctx or _STRETCH)
        return found

    def _runs(self) -> Iterator[tuple[Shelf, Run]]:
        """What is compared, each with the model that it needs: by model first, so that a model
        is loaded once."""
        options = self._options
        turns = list(dict.fromkeys(options.turns or [AUTO]))
        given = list(dict.fromkeys(options.given or [STORY]))
        for shelf, model in self._models:
            for read, settings in self._settings:
                ways = [f"--read {read}"] if self._answers.read else []
                for contestant in self._contestants(shelf, model, settings):
                    for turn in turns:
                        for each in given:
                            parts = [contestant.label, _GIVEN[each], *ways]
                            parts += [f"--turns {turn}"] if options.turns else []
                            run = Run(contestant, each, turn, ", ".join(parts))
                            yield shelf, run

    def _contestants(
        self, shelf: Shelf, model: ModelOptions, settings: SessionSettings
    ) -> Iterator[Contestant]:
        options, how = self._options, {"how": repr(model)}
        # What a model would be given: an extract is made without it.
        reads = replace(settings, summaries="write")
        reader = NazxContestant(shelf, reads, how, f"{shelf.name}, retrieval alone", answers=False)
        if options.retrieval:
            yield reader
        else:
            yield NazxContestant(shelf, settings, how, shelf.name)
        for rival in dict.fromkeys(options.against or ()):
            if rival in EXTRACTS:
                yield ExtractContestant(rival, options.extract_words)
            elif rival == "passages":
                yield PassagesContestant(reader, options.extract_words)
            else:
                library, way = WAYS[rival]
                make = partial(_PEERS[library], shelf, model.model, settings, self._screen)
                yield PeerContestant(library, way, reader, make, settings.max_tokens)

    def _shelf(self, model: ModelOptions) -> tuple[Shelf, ModelOptions]:
        """The model, found now and loaded when it is first asked."""
        models = models_of(model, self._screen)
        found = models.find(model.model)
        name = model.model + (f" + {model.adapter}" if model.adapter else "")

        def load() -> LanguageModel:
            return models.load(found, (), self._answers.ctx)

        return Shelf(name, load, found.folder, found.adapters.folders), model


def _transformers(shelf: Shelf, name: str, settings: SessionSettings, screen: Screen) -> Engine:
    from nazx_cli.bench.peers import transformers_peer

    if not transformers_peer.is_installed():
        raise NazxError(transformers_peer.MISSING, "or leave --against transformers out")
    lm = shelf.lm
    return transformers_peer.TransformersPeer.from_folder(lm.config, lm.folder, lm.decoder.dtype)


def _llama_cpp(shelf: Shelf, name: str, settings: SessionSettings, screen: Screen) -> Engine:
    from nazx_cli.bench.peers import llama_peer

    if not llama_peer.is_installed():
        raise NazxError(llama_peer.MISSING, "or leave --against llama.cpp out")
    file: Path = llama_peer.published(name, "", screen.note)
    longest = (shelf.lm.window or 4 * settings.max_tokens) + settings.max_tokens
    rival = llama_peer.rival(file, llama_peer.precision_of(file), longest)
    engine: Any = rival.engine
    if engine is None:
        raise NazxError(rival.note, "leave --against llama.cpp out")
    if engine.vocab_size != shelf.lm.config.vocab_size:
        raise NazxError(f"{file.name} is of a model with other tokens", "name that model with -m")
    made: Engine = engine
    return made


_PEERS = {"transformers": _transformers, "llama.cpp": _llama_cpp}


class _Teller:
    """Tells how far it is: a bar with the time left, or a line now and then."""

    def __init__(self, screen: Screen, file: AnswerFile) -> None:
        self._screen, self._file = screen, file
        self._bar = screen.bar("asking")
        self._told = time.monotonic()
        self._first: tuple[int, float] | None = None  # what was new when the first was there

    def __enter__(self) -> _Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show ``progress``."""
        self._bar.update(progress.label, progress.done, progress.total)
        now, fresh = time.monotonic(), progress.done - progress.found
        if fresh and self._first is None:  # the first one waits for the model and the documents
            self._first = fresh, now
        if self._screen.is_lively or now - self._told < _TOLD_EVERY:
            return
        self._told = now
        left = ""
        if self._first and fresh > self._first[0]:
            each = (now - self._first[1]) / (fresh - self._first[0])
            left = f", {roughly(each * (progress.total - progress.done))} left"
        self._screen.note(f"{progress.done:,} of {progress.total:,}{left} ({progress.label})")

    def telling(self, label: str) -> OnProgress:
        """What to call with what is done, and of how much, of that ``label``, which begins now."""
        used, self._first = self._file.used, None
        return lambda done, total: self.update(Progress(done, total, self._file.used - used, label))

    def tell_found(self) -> None:
        """Say what the answers file was good for."""
        self.stop()
        if self._file.used:
            self._screen.note(f"{self._file.used:,} of the answers were there already")
        elif self._file.found:
            self._screen.note(
                f"none of the {self._file.found:,} answers in the file was of use: they come from "
                "other questions, models or settings, or from another version"
            )
