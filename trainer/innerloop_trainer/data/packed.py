"""`packed:PATH`: a pack that `innerloop data pack` made of another source, whose examples stay on disk until drawn."""

from collections.abc import Mapping

from innerloop_learner.encoders import EncoderSpec
from innerloop_trainer.data.class_examples import source_of_classes
from innerloop_trainer.data.options import existing_path, read_options
from innerloop_trainer.data.pack_index import INDEX, SPLITS, PackIndex, read_examples
from innerloop_trainer.data.source import DataError, DataSource, NoOptions, SourceLoader, SourceRequest, sources

EXAMPLE = "packed:~/shards (a folder that `innerloop data pack SOURCE --out ~/shards` made)"


class PackedExamples(SourceLoader):
    """The source of packs. It draws the same episodes as the source that was packed, to the bit."""

    summary = "a pack of another source, read from disk as it is drawn: for data larger than memory"
    example = "packed:~/shards"
    options = NoOptions

    def options_for(self, encoder: EncoderSpec) -> Mapping[str, str]:
        """None: the size of what was packed stays as it is."""
        del encoder
        return {}

    def load(self, request: SourceRequest) -> DataSource:
        """As in `SourceLoader`."""
        read_options(request, NoOptions)
        folder = existing_path(request, EXAMPLE)
        index = PackIndex.read(folder)
        try:
            spec = index.input_spec
            train, validation, test = (read_examples(folder, index.splits[split], spec) for split in SPLITS)
        except DataError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder / INDEX} is damaged ({error}); pack the data again") from error
        return source_of_classes(
            index.name,
            f"{index.description}; packed",
            spec,
            request.device,
            train=train,
            validation=validation,
            test=test,
            options=index.options,
            rate=index.rate,
            notices=index.notices,
        )


sources.register("packed")(PackedExamples())
