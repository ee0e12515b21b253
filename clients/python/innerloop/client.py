"""The synchronous client."""

from collections.abc import Hashable, Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

from numpy.typing import ArrayLike

from innerloop import calls, operations
from innerloop.adaptation import Adaptation
from innerloop.bearer import TokenSource, make_bearer
from innerloop.calls import Call
from innerloop.channel import TLS
from innerloop.connection import Connection
from innerloop.connection_core import ConnectionSettings
from innerloop.inputs import Inputs
from innerloop.models import Migration, Model
from innerloop.predictions import Predictions
from innerloop.priority import Priority
from innerloop.wanted import read_wanted

T = TypeVar("T")


class Client:
    """Talks to an Innerloop server; may be used from many threads at once.

    Every method raises a subclass of InnerloopError when it fails, and takes a `timeout` in seconds that covers all
    of its attempts.

    Example::

        with Client("localhost:50051") as client:
            adaptation = client.adapt("omniglot", support_images, support_labels)
            for p in adaptation.predict(query_images):
                print(p.label, p.probability)
    """

    def __init__(
        self,
        target: str,
        *,
        tls: bool | TLS = False,
        api_key: str | None = None,
        token: TokenSource | None = None,
        insecure: bool = False,
        timeout: float = 30.0,
        retries: int = 4,
        readapt: bool = True,
        priority: Priority = "normal",
    ) -> None:
        """Prepare a connection, which is made when first used.

        Args:
            target: "host:port", or a name in one of gRPC's own schemes such as "dns:///host:port".
            tls: True for TLS that trusts the system's authorities, or a TLS object that names others.
            api_key: what `innerloop key` printed, sent with every call; None where the server knows callers otherwise.
            token: a JSON Web Token in its place, or a function without arguments that returns one and is called before
                every call, so that it can renew the token in time.
            insecure: whether the key or token may be sent in the clear to another machine, where others can read it.
            timeout: seconds that a call may take when it is given no timeout of its own.
            retries: how often a call that may safely be repeated is tried again; zero for never. While a model is
                loading, it is tried until its timeout.
            readapt: whether adaptations keep their support set, and adapt again when the server has dropped them.
            priority: how urgent this client's requests are among all those of the same caller: "batch" for work that
                nobody waits for, "interactive" where somebody does. Other callers are not affected.

        Raises:
            InvalidArgumentError: the target names no server, a file of `tls` can't be used, or the key or token can't
                be sent, or not safely.
        """
        bearer = make_bearer(target, tls, api_key, token, insecure=insecure)
        self._connection = Connection(ConnectionSettings(target, tls, timeout, retries, priority, bearer))
        self._readapt = readapt

    def adapt(
        self,
        model: str,
        inputs: Inputs,
        labels: Iterable[Hashable] | None = None,
        *,
        targets: ArrayLike | None = None,
        rate: int | None = None,
        steps: int | None = None,
        time_to_live: float | timedelta | None = None,
        forget_examples: bool = False,
        diagnose: bool = False,
        timeout: float | None = None,
    ) -> Adaptation:
        """Adapt a model to labelled examples.

        Args:
            model: name of the model.
            inputs: N examples: an array [N, *shape] (images with channels first or last, or without where the model
                has one), or a list of arrays, PIL images, or image files (paths, contents, or files opened in binary
                mode); to a model that takes texts, a list of strings; to a model that takes audio, a list of files of
                sound, or of arrays of samples with their `rate`. Values are those that the model was trained on, from
                0 to 255 for images, whatever their type. None, NaN and empty texts are refused.
            labels: classification: N labels, strings or anything hashable; answers carry the same objects, and plain
                numbers for scalars of NumPy and for tensors without dimensions.
            targets: regression: N numbers, or [N, D].
            rate: audio: samples a second of arrays [n] or [n, channels], which may differ in length. Floating-point
                samples are from -1 to 1, int16, int32 and uint8 ones as in WAV files. None for files.
            steps: inner-loop steps; the model's default when None.
            time_to_live: seconds for which the server keeps the adaptation unused; its default when None, and for ever
                when 0, which a server may refuse.
            forget_examples: whether the server must keep no examples with the adaptation. It can't make the adaptation
                again then, for example for another version of the model.
            diagnose: whether the server shall find out which labels may be wrong, what accuracy to expect, and which
                classes can't be told apart: `diagnosis` of the adaptation. It adapts once more for each example then,
                or 100 times if there are more; classification only, at most 500 examples.
            timeout: seconds; the client's default when None.
        """
        info, recipe = self._connection.run(
            operations.adapt(
                self._connection,
                model,
                inputs,
                labels,
                targets,
                rate,
                steps,
                time_to_live,
                forget_examples,
                diagnose,
                timeout,
            )
        )
        return Adaptation(self._connection, info, recipe.labels, recipe if self._readapt else None)

    def adapt_predict(
        self,
        model: str,
        inputs: Inputs,
        labels: Iterable[Hashable] | None = None,
        *,
        query: Inputs,
        targets: ArrayLike | None = None,
        rate: int | None = None,
        steps: int | None = None,
        return_logits: bool = False,
        coverage: float | None = None,
        timeout: float | None = None,
    ) -> Predictions:
        """Adapt and predict in one round trip; the server keeps nothing. Arguments as in `adapt` and `predict`.

        Queries that are too many for one request take several; the server then keeps the adaptation until the last one
        is answered.
        """
        return self._connection.run(
            operations.adapt_predict(
                self._connection,
                model,
                inputs,
                labels,
                query,
                targets,
                rate,
                steps,
                read_wanted(return_logits, coverage),
                timeout,
            )
        )

    def get_adaptation(self, adaptation_id: str, *, timeout: float | None = None) -> Adaptation:
        """An adaptation made before, perhaps by another process; its labels are strings, and it is not made again.

        Raises:
            AdaptationNotFoundError: there is none of this id.
        """
        info = self._call(calls.get_adaptation(adaptation_id), timeout)
        return Adaptation(self._connection, info)

    def list_adaptations(self, model: str | None = None, *, timeout: float | None = None) -> Iterator[Adaptation]:
        """The caller's own adaptations, newest first, fetched page by page; `timeout` is that of one page."""
        token = ""
        while True:
            page = self._call(calls.list_adaptations(model, token), timeout)
            yield from (Adaptation(self._connection, info) for info in page.adaptations)
            token = page.next_token
            if not token:
                return

    def delete_adaptation(self, adaptation_id: str, *, timeout: float | None = None) -> None:
        """Make the server forget an adaptation.

        Raises:
            AdaptationNotFoundError: there is none of this id.
        """
        self._call(calls.delete_adaptation(adaptation_id), timeout)

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """All models of the server, those that failed to load included."""
        return self._call(calls.list_models(), timeout)

    def model(self, name: str, *, timeout: float | None = None) -> Model:
        """One model.

        Raises:
            ModelNotFoundError: there is none of this name.
        """
        return self._call(calls.get_model(name), timeout)

    def load_model(self, name: str, *, timeout: float | None = None) -> Model:
        """Load what isn't loaded of a model, or NAME@VERSION, and read its aliases; needs admin scope. Not retried."""
        return self._call(calls.load_model(name), timeout)

    def unload_model(self, name: str, *, timeout: float | None = None) -> None:
        """Unload a model, or one version of it (NAME@VERSION); needs admin scope. Not retried."""
        self._call(calls.unload_model(name), timeout)

    def set_alias(
        self, model: str, alias: str, version: str | None, *, percent: float = 0.0, timeout: float | None = None
    ) -> Model:
        """Have an alias of a model point to a version; needs admin scope.

        Args:
            model: its name.
            alias: "stable", which the model's bare name stands for, "canary", or any other name.
            version: folder of the version, or the beginning of its digest; None takes the alias away.
            percent: share of callers who get "canary" when they ask for the bare name.
            timeout: seconds; the client's if None.
        """
        return self._call(calls.set_alias(model, alias, version, percent), timeout)

    def migrate(self, model: str, *, to: str | None = None, timeout: float | None = None) -> Migration:
        """Begin to make a model's adaptations again on another version, in the background; needs admin scope.

        Their ids stay. Calling it again while that is under way says how far it is.

        Args:
            model: its name.
            to: alias or folder of the version, or the beginning of its digest; "stable" if None.
            timeout: seconds; the client's if None.
        """
        return self._call(calls.migrate(model, to), timeout)

    def migration(self, model: str, *, timeout: float | None = None) -> Migration:
        """How far the latest migration of a model is; needs admin scope."""
        return self._call(calls.get_migration(model), timeout)

    def _call(self, call: Call[T], timeout: float | None) -> T:
        return self._connection.run(self._connection.call(call, self._connection.deadline(timeout)))

    def close(self) -> None:
        """Close the connection; calls under way fail."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
