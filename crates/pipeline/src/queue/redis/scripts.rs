//! The Lua scripts of the queue. Each change of the queue is one script, so that no other command sees a partial change.

use redis::Script;

use super::super::{MAX_CRASHES, MAX_FAIRNESS_CREDIT};
use crate::{MAX_SHARED_CRASHES, MESSAGE_VERSION};

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
    pub(super) stage_mode: Script,
    pub(super) remove_dead_letter: Script,
    pub(super) heartbeat: Script,
    pub(super) workers: Script,
    pub(super) deregister: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |text: &str| {
            Script::new(&format!(
                "local MESSAGE_VERSION, MAX_SHARED_CRASHES = {MESSAGE_VERSION}, {MAX_SHARED_CRASHES}\n\
                 local MAX_CRASHES, MAX_FAIRNESS_CREDIT = {MAX_CRASHES}, {MAX_FAIRNESS_CREDIT}\n\
                 {}\n{text}",
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
            stage_mode: script(include_str!("scripts/stage_mode.lua")),
            remove_dead_letter: script(include_str!("scripts/remove_dead_letter.lua")),
            heartbeat: script(include_str!("scripts/heartbeat.lua")),
            workers: script(include_str!("scripts/workers.lua")),
            deregister: script(include_str!("scripts/deregister.lua")),
        }
    }
}
