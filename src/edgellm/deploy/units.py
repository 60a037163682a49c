"""
The texts that are put on a device: systemd units, settings, launcher.

The service answers one prompt a connection: systemd listens on a Unix socket and starts `edgellm run` with it as
standard input and output, so that nothing takes memory between questions. Nobody but root and the group of the socket
may ask. The sandbox is what `systemd-analyze security` calls well protected (a test reads its figure).
"""

from __future__ import annotations

SOCKET = "/run/edgellm.sock"
SETTINGS_PATH = "/etc/edgellm/edgellm.env"
UNIT_FOLDER = "/etc/systemd/system"
NAMES = ("edgellm.socket", "edgellm@.service")
ENABLED = "sockets.target.wants/edgellm.socket"

_SOCKET_UNIT = """\
[Unit]
Description=edgellm: ask the language model of this machine
Documentation=man:systemd.socket(5)

[Socket]
ListenStream={socket}
Accept=yes
SocketMode=0660
MaxConnections=2
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""

_SERVICE_UNIT = """\
[Unit]
Description=edgellm: one answer
CollectMode=inactive-or-failed

[Service]
EnvironmentFile={settings}
ExecStart={command} run ${{EDGELLM_MODEL}} $EDGELLM_ARGUMENTS -
StandardInput=socket
StandardOutput=socket
StandardError=journal
{user}
# An answer takes as long as it takes, but not for ever, and never the whole machine.
RuntimeMaxSec=900
Nice=5
OOMScoreAdjust=500
TasksMax=64

# It reads a model and computes: no network, no devices, no new rights, nothing written.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=none
PrivateIPC=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077
LimitCORE=0
"""

_SETTINGS = """\
# Settings of edgellm on this machine, for its service and the command line. Edit freely: what you change is kept when
# edgellm is put here again. EDGELLM_ARGUMENTS are options of 'edgellm run' for the service.
EDGELLM_MODEL={model}
EDGELLM_ARGUMENTS={arguments}
{more}"""

# Read by the device's Python, whichever it is: nothing newer than 3.10 in it.
_LAUNCHER = """\
#!/usr/bin/python3
# edgellm as 'edgellm flash' put it here: the packages beside this file, models and settings of the same system.
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
BASE = os.path.dirname(os.path.dirname(HERE))
ROOT = BASE[: -len("/opt/edgellm")] if BASE.endswith("/opt/edgellm") else ""
sys.path.insert(0, os.path.join(HERE, "site"))
os.environ.setdefault("EDGELLM_HOME", os.path.join(BASE, "home"))
try:
    with open(ROOT + "/etc/edgellm/edgellm.env", encoding="utf-8") as file:
        for line in file:
            name, equals, value = line.strip().partition("=")
            if equals and name.startswith("EDGELLM_"):
                os.environ.setdefault(name, value)
except OSError:
    pass
from edgellm.cli import main  # noqa: E402

sys.exit(main())
"""


def socket_unit() -> str:
    """edgellm.socket."""
    return _SOCKET_UNIT.format(socket=SOCKET)


def service_unit(command: str, *, user: str | None = None) -> str:
    """
    edgellm@.service.

    Args:
        command: What starts edgellm, with absolute paths.
        user: Whom it runs as, where only that user can read program and model; None: a user made up for each answer.
    """
    line = f"User={user}" if user else "DynamicUser=yes"
    home = "read-only" if user else "yes"
    return _SERVICE_UNIT.format(settings=SETTINGS_PATH, command=command, user=line, home=home)


def settings(model: str, arguments: str, more: dict[str, str]) -> str:
    """edgellm.env."""
    return _SETTINGS.format(
        model=model, arguments=arguments, more="".join(f"{name}={value}\n" for name, value in more.items())
    )


def launcher() -> str:
    """The program edgellm on the device."""
    return _LAUNCHER
