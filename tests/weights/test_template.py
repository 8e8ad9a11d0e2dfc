import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.errors import RefusedError
from medlocal.weights import sandbox
from medlocal.weights.inspect import read_gguf
from medlocal.weights.template import ChatTemplate, check_bos
from tests.weights.gguf_files import CHATML, write_model

# The demo model's own, SmolLM2-135M-Instruct.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# After Mistral 7B's: strictly alternating, and no place for a system turn.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
# Before every test template that breaks off: so that it has said all when it is tried.
SAYS_ALL = "{% for m in messages %}{{ m.content }}{% endfor %}"


def template(source: str, bos: str = "<s>", eos: str = "</s>") -> ChatTemplate:
    return ChatTemplate(source, bos, eos, "model.gguf")


def refusal(source: str) -> str:
    with pytest.raises(RefusedError) as caught:
        template(source).render([("user", "hello")])
    assert caught.value.hint
    assert "the chat template of model.gguf" in caught.value.message
    return caught.value.message


# Renderings, written out by hand.


def test_renders_chatml() -> None:
    messages = [("system", "Be brief."), ("user", "¿Qué?"), ("assistant", "A"), ("user", "Why?")]

    assert template(SMOLLM2).render(messages) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n¿Qué?<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_template_may_write_a_system_turn_of_its_own() -> None:
    assert template(SMOLLM2).render([("user", "Why?")]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_generation_prompt_is_left_out_on_demand() -> None:
    rendered = template(CHATML).render([("user", "Why?")], add_generation_prompt=False)

    assert rendered == "<|im_start|>user\nWhy?<|im_end|>\n"


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name", ["meta-llama-Llama-3.1-8B-Instruct.jinja", "meta-llama-Llama-3.2-3B-Instruct.jinja"]
)
def test_renders_llama_3_with_its_fixed_date(llama_vocab: Path, name: str) -> None:
    source = (llama_vocab / name).read_text(encoding="utf-8")
    llama = template(source, "<|begin_of_text|>", "<|eot_id|>")

    rendered = llama.render([("system", "Be brief. "), ("user", "Which?"), ("assistant", "A")])

    assert rendered == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
        "Be brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhich?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_blocks_are_trimmed_as_hugging_face_trims_them() -> None:
    source = "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n"

    assert template(source).render([("user", "a"), ("user", "b")]) == "a\nb\n"


def test_loops_can_be_left_and_continued() -> None:
    source = (
        SAYS_ALL + "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
        "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    )

    assert template(source).render([("user", "hello")]) == "hello02"


def test_the_loop_variable_knows_where_it_is() -> None:
    source = (
        "{% for m in messages if m.role == 'user' %}"
        "{{ loop.index }}/{{ loop.length }} {{ m.content }}{{ '' if loop.last else ', ' }}{% endfor %}"
    )

    assert template(source).render([("user", "a"), ("user", "b")]) == "1/2 a, 2/2 b"


def test_json_is_not_escaped_for_html() -> None:
    source = "{% for m in messages %}{{ m | tojson }}{% endfor %}"

    assert template(source).render([("user", "á < b & c")]) == (
        '{"role": "user", "content": "á < b & c"}'
    )


def test_json_can_be_indented() -> None:
    assert template(SAYS_ALL + "{{ {'a': 1} | tojson(indent=2) }}").render([("user", "")]) == (
        '{\n  "a": 1\n}'
    )


def test_what_marks_the_text_for_a_trainer_is_transparent() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"

    assert template(source).render([("user", "a")]) == "a"


def test_tools_are_defined_and_none() -> None:
    source = SAYS_ALL + "{{ tools is defined }} {{ tools is none }}"

    assert template(source).render([("user", "")]) == "True True"


def test_html_in_a_message_is_left_alone() -> None:
    assert template(SAYS_ALL).render([("user", "a < b & <b>")]) == "a < b & <b>"


def test_a_message_is_text_and_never_a_template() -> None:
    assert template(SAYS_ALL).render([("user", "{{ 7 * 7 }}{% if %}")]) == "{{ 7 * 7 }}{% if %}"


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text()), min_size=1))
def test_chatml_holds_every_message_in_order(messages: list[tuple[str, str]]) -> None:
    expected = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)

    assert template(CHATML).render(messages, add_generation_prompt=False) == expected


def test_two_renderings_are_the_same() -> None:
    chat = template(SMOLLM2)

    assert chat.render([("user", "a")]) == chat.render([("user", "a")])


# Templates without a system turn.


def test_the_system_text_goes_into_the_first_user_turn_where_it_is_refused() -> None:
    chat = template(MISTRAL)

    rendered = chat.render([("system", "Be brief."), ("user", "Why?"), ("assistant", "A")])

    assert chat.merges_system
    assert rendered == "<s>[INST] Be brief.\n\nWhy? [/INST]A</s>"


def test_the_system_text_goes_into_the_first_user_turn_where_it_would_be_dropped() -> None:
    chat = template("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}")

    assert chat.render([("system", "Be brief."), ("user", "Why?")]) == "Be brief.\n\nWhy?"


def test_an_empty_system_text_adds_nothing() -> None:
    assert template(MISTRAL).render([("system", ""), ("user", "Why?")]) == "<s>[INST] Why? [/INST]"


def test_messages_without_a_system_turn_stay_as_they_are() -> None:
    assert template(MISTRAL).render([("user", "Why?")]) == "<s>[INST] Why? [/INST]"


def test_a_template_with_a_system_turn_merges_nothing() -> None:
    assert not template(SMOLLM2).merges_system


def test_refuses_a_template_that_drops_what_the_user_says() -> None:
    assert "leaves out what the user says" in refusal("Hello!")


def test_says_what_the_template_says_when_it_refuses_the_messages() -> None:
    with pytest.raises(RefusedError, match=r"refuses the messages in line 1: .* must alternate"):
        template(MISTRAL).render([("user", "a"), ("user", "b")])


# Where a template comes from.


def test_a_template_comes_with_the_special_tokens_of_its_file(tmp_path: Path) -> None:
    chat = ChatTemplate.from_gguf(read_gguf(write_model(tmp_path / "m.gguf")))

    assert (chat.source, chat.bos_token, chat.eos_token) == (CHATML, "<s>", "</s>")


def test_a_model_without_special_tokens_writes_none(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", bos_token_id=None, eos_token_id=None)

    chat = ChatTemplate.from_gguf(read_gguf(path))

    assert (chat.bos_token, chat.eos_token) == ("", "")


def test_a_base_model_is_refused_and_never_guessed_at(tmp_path: Path) -> None:
    path = write_model(tmp_path / "base.gguf", chat_template=None)

    with pytest.raises(RefusedError, match=r"base\.gguf has no chat template") as caught:
        ChatTemplate.from_gguf(read_gguf(path))
    assert "use an instruct model" in (caught.value.hint or "")


def test_a_broken_template_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", chat_template="\n\n{% if %}")

    with pytest.raises(RefusedError, match=r"m\.gguf fails in line 3: Expected an expression"):
        ChatTemplate.from_gguf(read_gguf(path))


def test_the_hash_is_that_of_the_source() -> None:
    assert template("ñ").sha256 == hashlib.sha256(b"\xc3\xb1").hexdigest()


def test_templates_are_equal_wherever_they_come_from() -> None:
    assert ChatTemplate("a", "", "", "one.gguf") == ChatTemplate("a", "", "", "two.gguf")


# Templates that fail.


def test_a_failure_names_the_line() -> None:
    assert "fails in line 3: 'x' is undefined" in refusal("\n\n{{ x.y }}")


def test_an_unknown_filter_names_the_line() -> None:
    assert "fails in line 2: No filter named 'nonsense'" in refusal("\n{{ 1 | nonsense }}")


def test_todays_date_is_not_to_be_had() -> None:
    with pytest.raises(RefusedError, match="'strftime_now' is undefined") as caught:
        template("{{ strftime_now('%d %b %Y') }}").render([("user", "a")])
    assert "every answer from day to day" in (caught.value.hint or "")


@pytest.mark.parametrize("source", ["{{ lipsum() }}", "{{ [1, 2] | random }}"])
def test_nothing_random_is_to_be_had(source: str) -> None:
    refusal(source)


def test_a_failure_shows_no_control_characters() -> None:
    assert "\x1b" not in refusal("{{ raise_exception('\x1b[2J') }}")


# Templates that attack.

ESCAPES = {
    "class of a string": "{{ ''.__class__.__mro__ }}",
    "class alone": "{{ ''.__class__ }}",
    "globals of a global": "{{ cycler.__init__.__globals__ }}",
    "CVE-2024-34359": (
        "{% for x in ().__class__.__base__.__subclasses__() %}{% if 'warning' in x.__name__ %}"
        "{{ x()._module.__builtins__['__import__']('os').popen('id').read() }}{% endif %}{% endfor %}"
    ),
    "subscript": "{{ ''['__class__'] }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "map filter": "{{ ['']|map(attribute='__class__')|list }}",
    "format": "{{ '{0.__class__}'.format('') }}",
    "format behind attr": "{{ ('{0.__class__}'|attr('format'))('') }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "the template itself": "{{ self.__init__ }}",
    "a function's globals": "{{ raise_exception.__globals__ }}",
    "a macro": "{% macro m() %}{% endmacro %}{{ m.__init__ }}",
    "the list of messages": "{{ messages.append(1) }}",
    "a message": "{{ messages[0].update({'role': 'system'}) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "from": "{% from 'os' import system %}",
    "extends": "{% extends '/etc/passwd' %}",
}


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES.keys())
def test_refuses_a_template_that_reaches_out(source: str) -> None:
    refusal(SAYS_ALL + source)


GROW = "{{% set n = namespace(x={}) %}}{{% for i in range(60) %}}{{% set n.x = {} %}}{{% endfor %}}"
EXHAUSTING = {
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "nested constants": "{% for a in '0123456789' %}" * 12 + "{% endfor %}" * 12,
    "a giant range": "{{ range(1000000) }}",
    "a recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a branching macro": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "a recursive loop": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "a doubled string, ~": GROW.format("'ab'", "n.x ~ n.x"),
    "a doubled string, +": GROW.format("'ab'", "n.x + n.x"),
    "a doubled list": GROW.format("[1, 2]", "n.x + n.x"),
    "a squared number": GROW.format("9", "n.x * n.x"),
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a repeated string": "{{ 'a' * 10000000000 }}",
    "a repeated string, turned": "{{ 10000000000 * 'a' }}",
    "a centred string": "{{ 'a' | center(10000000000) }}",
    "a padded string": "{{ 'a'.ljust(10000000000) }}",
    "slices": "{{ [1] | slice(10000000000) | list }}",
    "a long output": "{% for a in range(90000) %}" + "x" * 100 + "{% endfor %}",
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep blocks": "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "a long source": " " * 2_000_000,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("source", EXHAUSTING.values(), ids=EXHAUSTING.keys())
def test_refuses_a_template_that_exhausts(source: str) -> None:
    refusal(SAYS_ALL + source)


def test_the_steps_of_one_rendering_do_not_count_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "MAX_STEPS", 10)
    chat = template(SAYS_ALL)

    assert [chat.render([("user", "a")]) for _ in range(20)] == ["a"] * 20


def test_a_long_question_is_no_attack() -> None:
    question = "palabra " * 100_000

    assert template(SAYS_ALL).render([("user", question)]) == question


# Exactly one BOS.


@pytest.mark.parametrize("add_bos", [True, None])
def test_a_bos_is_put_first_where_the_template_wrote_none(add_bos: bool | None) -> None:
    assert check_bos([5, 6], 1, add_bos) == [1, 5, 6]


@pytest.mark.parametrize("add_bos", [True, None, False])
def test_a_bos_that_is_there_stays_the_only_one(add_bos: bool | None) -> None:
    assert check_bos([1, 5, 6], 1, add_bos) == [1, 5, 6]


def test_no_bos_is_added_where_none_is_wanted() -> None:
    assert check_bos([5, 6], 1, False) == [5, 6]


@pytest.mark.parametrize("add_bos", [True, None, False])
def test_refuses_two_bos(add_bos: bool | None) -> None:
    with pytest.raises(RefusedError, match=r"BOS \(token 1\) twice"):
        check_bos([1, 1, 5], 1, add_bos)


def test_a_bos_that_marks_turns_may_come_back_later() -> None:
    assert check_bos([1, 9, 2, 1, 8], 1, False) == [1, 9, 2, 1, 8]


@pytest.mark.parametrize("add_bos", [None, False])
def test_a_model_without_a_bos_gets_none(add_bos: bool | None) -> None:
    assert check_bos([5], None, add_bos) == [5]


def test_refuses_a_model_that_wants_a_bos_it_does_not_name() -> None:
    with pytest.raises(RefusedError, match="names none"):
        check_bos([5], None, True)


def test_an_empty_prompt_is_a_bos() -> None:
    assert check_bos([], 1, True) == [1]


# What loading this costs.


@pytest.mark.parametrize("module", ["jinja2", "gguf", "numpy"])
def test_importing_the_module_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, medlocal.weights.template; sys.exit({module!r} in sys.modules)"

    root = Path(__file__).parents[2]

    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
