"""Our discovery and state messages against Home Assistant's own parser, schemas and templates.

usage: home_assistant.py MESSAGES.json

The file is what `fleet_home.py --messages FILE` heard on the home's broker: discovery and state of one mirror, and discovery of one
without a fleet. Runs with a Python
in which Home Assistant is installed, `pip install homeassistant==2025.1.4` in Python 3.13.
"""

import asyncio
import importlib
import json
import logging
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from homeassistant.components.mqtt import discovery
from homeassistant.components.sensor import SensorDeviceClass
from homeassistant.core import HomeAssistant
from homeassistant.helpers.template import Template


async def check(messages: dict, folder: str) -> list[str]:
    """Names of the entities that Home Assistant would make; raises where it refuses something."""
    hass = HomeAssistant(folder)
    state = messages["state"]
    assert state["updates_left"] > 0 or state["epsilon_left"] == 0, "what no update fits is nothing that is left"
    made, removed = entities(messages["discovery"], "mirror-1", state, hass)
    assert not removed, f"a member of a fleet lacks {removed}"
    alone, removed = entities(messages["alone"], "alone", state, hass)
    # All that it has no fleet for, should Home Assistant have it from an earlier time.
    assert "switch.take_part" in removed and sorted(alone + removed) == sorted(made), (alone, removed)
    return made


def entities(message: dict, device: str, state: dict, hass: HomeAssistant) -> tuple[list[str], list[str]]:
    """What Home Assistant would make of a discovery message, and what it would remove."""
    parsed = discovery._parse_device_payload(hass, json.dumps(message), device, None)
    assert parsed, "the device's message was refused; the reason is logged above"
    assert discovery._valid_origin_info(parsed), "the origin was refused"
    made, removed = [], []
    for name, component in parsed["components"].items():
        platform = component.pop("platform")
        if not component:
            # As discovery.async_discovery_message_received reads it.
            removed.append(f"{platform}.{name}")
            continue
        component = discovery.MQTTDiscoveryPayload(component | {"device": parsed["device"], "origin": parsed["origin"]})
        discovery._merge_common_device_options(component, parsed)
        module = importlib.import_module(f"homeassistant.components.mqtt.{platform}")
        accepted = module.DISCOVERY_SCHEMA(component)
        made.append(f"{platform}.{name}")
        check_state(platform, name, accepted, state, hass)
    return made, removed


def check_state(platform: str, name: str, accepted: dict, state: dict, hass: HomeAssistant) -> None:
    """The state as the entity's own template reads it is one that its platform understands."""
    template = accepted.get("value_template")
    if template is None:
        assert platform == "button", f"{name} never shows anything"
        return
    shown = render(template.template, state, hass)
    if platform in ("switch", "binary_sensor"):
        assert shown in (accepted.get("payload_on", "ON"), accepted.get("payload_off", "OFF")), (name, shown)
    elif platform == "update":
        assert set(json.loads(shown)) == {"installed_version", "latest_version"}, shown
    elif accepted.get("state_class"):
        float(shown)
    elif accepted.get("device_class") == SensorDeviceClass.TIMESTAMP:
        assert shown == "None" or datetime.fromisoformat(shown).tzinfo, shown
    assert shown not in ("", "failed"), f"{name} cannot be read from the state"
    assert len(shown) <= 255, f"{name}: {len(shown)} characters"


def render(text: str, state: dict, hass: HomeAssistant) -> str:
    return str(Template(text, hass).async_render_with_possible_json_value(json.dumps(state), "failed"))


def main() -> int:
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        made = asyncio.run(check(json.loads(Path(sys.argv[1]).read_text()), folder))
    version = importlib.import_module("homeassistant.const").__version__
    print(f"Home Assistant {version} takes the discovery message and makes {len(made)} entities of it: {', '.join(made)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
