"""The page: Gradio, bound to this machine alone, asking nothing of any other, keeping nothing."""

import logging
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio import processing_utils
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from viker_lightning.errors import UserError

from .address import HERE
from .desk import COLOURS, OWN, Colour, Desk, Exchange, heading, refused, shown_answers, style

FONT = [gr.themes.Font(name) for name in ("Segoe UI", "Roboto", "Noto Sans", "sans-serif")]
CODE = [gr.themes.Font(name) for name in ("Cascadia Mono", "DejaVu Sans Mono", "monospace")]
"""Fonts of whoever looks at the page: Gradio's own may be those of a font service."""

READABLE = {"button_primary_background_fill": "*primary_600", "button_primary_background_fill_hover": "*primary_700"}
"""White letters on the theme's own blue have too little contrast."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'none'; form-action 'self'"
)
"""What browsers are told, which then refuse to load anything from elsewhere."""

LARGEST = 64 * 2**20
"""Bytes of a picture that is uploaded; more than any camera's JPEG."""


class OnlyFromHere:
    """Turns away what a page of another site sends, and tells browsers that answers may load nothing from elsewhere.

    A browser says with what it sends which page it was sent from. That must be this one, whose address is the host it
    is asked by: another port of this machine is another page.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, as ASGI has it."""
        said = Headers(scope=scope) if scope["type"] in ("http", "websocket") else {}
        if (origin := said.get("origin")) is not None and origin != f"http://{said.get('host')}":
            refusal = PlainTextResponse("sent from another page; open this one and ask there", status_code=403)
            await refusal(scope, receive, send)
            return

        async def tell(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, tell)


async def fetch_nothing(url: str, cache_dir: str) -> str:
    """Stands where Gradio would fetch a file whose address it is given in place of a file.

    Raises:
        gr.Error: always.
    """
    raise gr.Error("found the address of a picture, expected a picture: this page asks no other machine; upload it")


def page(desk: Desk, title: str) -> gr.Blocks:
    """The page of a run."""
    places = desk.places
    titles, questions = _numbered(desk.titles(places[0])), desk.questions(places[0], 0)
    own = places[0] == OWN
    with gr.Blocks(analytics_enabled=False, title=title) as made:
        gr.HTML(heading(title), apply_default_css=False)
        latest = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                place = gr.Radio(places, value=places[0], label="Photo")
                photo = gr.Dropdown(titles, value=None if own else 0, label="Person", visible=not own)
                upload = gr.File(file_types=["image"], type="filepath", label="Your picture", height=130, visible=own)
                shown = gr.HTML(desk.shown(places[0], 0, None), apply_default_css=False)
            with gr.Column(scale=3, min_width=320):
                picked = gr.Dropdown(
                    questions, value=next(iter(questions), None), label="A question of the data", visible=not own
                )
                question = gr.Textbox(next(iter(questions), ""), label="Question: picked, changed, or your own")
                colour = gr.Radio([*COLOURS], value=COLOURS[0], label="Tokens are coloured by")
                button = gr.Button("Ask", variant="primary")
                answers = gr.HTML("", apply_default_css=False)

        def turn_to(where: str) -> tuple[Any, ...]:
            """Another split, or a picture of one's own."""
            mine = where == OWN
            found = _numbered(desk.titles(where))
            return gr.Dropdown(found, value=None if mine else 0, visible=not mine), gr.File(visible=mine)

        def look(where: str, number: int | None, file: str | None) -> tuple[Any, ...]:
            """Another photo."""
            asked = desk.questions(where, number)
            first = next(iter(asked), None)
            offered = gr.Dropdown(asked, value=first, visible=bool(asked))
            return desk.shown(where, number, file), offered, gr.skip() if first is None else first

        def ask(where: str, number: int | None, file: str | None, text: str, by: Colour) -> tuple[Exchange | None, str]:
            """Everybody's answers."""
            try:
                exchange = desk.ask(where, number, file, text)
            except UserError as error:
                return None, refused(error)
            return exchange, shown_answers(exchange, by)

        chosen = [place, photo, upload]
        gr.on([place.input], turn_to, place, [photo, upload], show_progress="hidden", api_name="place").then(
            look, chosen, [shown, picked, question], show_progress="hidden", api_name="look"
        )
        gr.on(
            [photo.input, upload.upload, upload.clear],
            look,
            chosen,
            [shown, picked, question],
            show_progress="hidden",
            api_visibility="private",
        )
        picked.input(lambda text: text, picked, question, show_progress="hidden", api_visibility="private")
        gr.on([button.click, question.submit], ask, [*chosen, question, colour], [latest, answers], api_name="ask")
        colour.input(shown_answers, [latest, colour], answers, show_progress="hidden", api_visibility="private")
    return made


def _numbered(titles: list[str]) -> list[tuple[str, int]]:
    """Choices of a list whose values are numbers, since titles are only for reading."""
    return [(title, number) for number, title in enumerate(titles)]


def server(made: gr.Blocks) -> uvicorn.Server:
    """What serves a page: no share link, no analytics, no history, no log of requests."""
    processing_utils.async_ssrf_protected_download = fetch_nothing
    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HERE, "localhost"])  # no other site can pose as this one
    app.add_middleware(OnlyFromHere)
    gr.mount_gradio_app(
        app,
        made,
        path="/",
        server_name=HERE,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        max_file_size=LARGEST,
        theme=gr.themes.Base(font=FONT, font_mono=CODE).set(**READABLE),
        css=style(),
    )
    made.has_launched = made.is_running = True  # else Gradio reads any file that is named to it, not uploads alone
    # An open page holds a connection, which the end does not wait for: that it is cut off is no error.
    serving = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=0))
    logging.getLogger("uvicorn.error").addFilter(lambda _: not serving.should_exit)
    return serving
