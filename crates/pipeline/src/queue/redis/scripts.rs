//! The scripts. Every change of the queue is one script, so that it happens completely or not at all.

use redis::Script;

use super::super::MAX_FAIRNESS_CREDIT;
use crate::{MAX_ISOLATED_CRASHES, MAX_SHARED_CRASHES, MESSAGE_VERSION};

pub(super) struct Scripts {
    pub(super) enqueue: Script,
    pub(super) lease: Script,
    pub(super) renew: Script,
    pub(super) settle: Script,
    pub(super) dead_letter_unreadable: Script,
    pub(super) cancel: Script,
    pub(super) reprioritize: Script,
    pub(super) contains: Script,
    pub(super) depth: Script,
    pub(super) backlog: Script,
    pub(super) flow: Script,
    pub(super) dead_letters: Script,
    pub(super) heartbeat: Script,
    pub(super) workers: Script,
    pub(super) deregister: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |text: &str| {
            Script::new(&format!(
                "local VERSION, MAX_SHARED_CRASHES, MAX_CRASHES, MAX_CREDIT = {MESSAGE_VERSION}, {MAX_SHARED_CRASHES}, {}, {MAX_FAIRNESS_CREDIT}\n{}\n{text}",
                MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES,
                include_str!("scripts/common.lua"),
            ))
        };
        Self {
            enqueue: script(include_str!("scripts/enqueue.lua")),
            lease: script(include_str!("scripts/lease.lua")),
            renew: script(include_str!("scripts/renew.lua")),
            settle: script(include_str!("scripts/settle.lua")),
            dead_letter_unreadable: script(include_str!("scripts/dead_letter_unreadable.lua")),
            cancel: script(include_str!("scripts/cancel.lua")),
            reprioritize: script(include_str!("scripts/reprioritize.lua")),
            contains: script(include_str!("scripts/contains.lua")),
            depth: script(include_str!("scripts/depth.lua")),
            backlog: script(include_str!("scripts/backlog.lua")),
            flow: script(include_str!("scripts/flow.lua")),
            dead_letters: script(include_str!("scripts/dead_letters.lua")),
            heartbeat: script(include_str!("scripts/heartbeat.lua")),
            workers: script(include_str!("scripts/workers.lua")),
            deregister: script(include_str!("scripts/deregister.lua")),
        }
    }
}
