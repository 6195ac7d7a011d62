#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Each wall alone: the other four are switched off (planted bugs, no seal, no guard), and it stops by itself what it is
there for. Each attack is first made with all five off, where it has to succeed: otherwise its failure would prove nothing.

The attacks are in attacks.py. A seed is told and changes nothing: they are few enough for all of them to be made.
"""
import sys

import attacks
import live

OFF = {
    "registration": "FOREIGN_ID_TAKEN,TOKEN_NOT_VERIFIED,TOKEN_EXPIRY_IGNORED,TOKEN_AUDIENCE_IGNORED,"
                    "TOKEN_GENERATION_IGNORED",
    "table": "ENDPOINT_NOT_COMPARED,ENDPOINT_STAYS,REVOKE_KEEPS_GROUPS",
    "kernel": "FILTER_PASSES_FOREIGN,FILTER_PASSES_OLD_GENERATION,FILTER_KEEPS_OLD_KEYS,FILTER_PASSES_WRONG_TAG,"
              "SCOPE_OUTLIVES_REVOCATION",
    "liveness": "ECHO_NOT_CHECKED,CHALLENGE_SALT_IGNORED,LEASE_IGNORED,DEATH_IGNORED",
    "cryptography": "PUBLISH_TAG_IGNORED",
}
# An end that liveness finds due is carried out by taking the endpoint out of the table: that much of the table is its own.
ACTS_BY = {"liveness": "ENDPOINT_STAYS"}
# Wall -> what it has to stop alone, and what of the secret may be had all the same.
WALLS = {
    "registration": ("nothing", [
        attacks.takes_another_users_id, attacks.token_of_another_key, attacks.token_without_algorithm,
        attacks.token_with_another_name, attacks.token_that_expired, attacks.token_for_another_audience,
        attacks.token_from_before_a_revocation]),
    "liveness": ("nothing", [
        attacks.forged_echo, attacks.echo_from_elsewhere, attacks.echo_of_an_earlier_challenge, attacks.outlives_its_lease,
        attacks.outlives_its_death]),
    "kernel": ("nothing", [
        attacks.packet_of_another, attacks.packet_with_a_wrong_tag, attacks.packet_from_before_a_revocation,
        attacks.socket_from_before_a_revocation, attacks.strangers_socket_on_the_port, attacks.endpoint_of_another]),
    "cryptography": ("sealed", [
        attacks.altered_payload, attacks.packet_under_another_name, attacks.packet_under_another_users_key,
        attacks.altered_publish, attacks.socket_from_before_a_revocation, attacks.strangers_socket_on_the_port,
        attacks.endpoint_of_another]),
    "table": ("nothing", [
        attacks.endpoint_of_another, attacks.block_of_another, attacks.endpoint_after_its_end,
        attacks.endpoint_after_a_move, attacks.group_from_before_a_revocation]),
}


def with_walls(on):
    """An instance in which only the walls `on` stand."""
    plants = {plant for wall, plants in OFF.items() if wall not in on for plant in plants.split(",")}
    plants = ",".join(sorted(plants - {ACTS_BY.get(wall) for wall in on}))
    config = {"scope.seal": "true" if "cryptography" in on else "false", "times.lease": attacks.LEASE_S,
              "scope.port_guard": "true" if "kernel" in on else "false"}
    return live.instance(plant=plants, ports=200, config=config)


def attempt(on, tried):
    """Attack -> what it gave, with the walls `on` alone."""
    instance = with_walls(on)
    try:
        return {attack: attack(attacks.Scene(instance, attack.__name__)) for attack in tried}
    finally:
        instance.down()


def main():
    how = live.arguments(__doc__)
    part = live.Part("walls alone", "attacks", how.seed)
    every = dict.fromkeys(attack for _, tried in WALLS.values() for attack in tried)
    for attack, got in (open_field := attempt((), every)).items():
        if got != "all":
            part.got_through(f"with no wall at all {attack.__name__} gives {got}: its failure would prove nothing")
    for wall, (most, tried) in WALLS.items():
        for attack, got in attempt((wall,), tried).items():
            part.tried()
            print(f"{wall}: {attack.__name__}: {open_field[attack]} without any wall, {got} with this one alone", flush=True)
            if got not in ("nothing", most):
                part.got_through(f"{wall} alone: {attack.__name__} gives {got}")
    return part.close()


if __name__ == "__main__":
    sys.exit(main())
