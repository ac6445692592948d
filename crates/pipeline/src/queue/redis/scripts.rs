//! The scripts: every move is one, so that it happens whole or not at all.

use redis::Script;

use super::super::MAX_FAIRNESS_CREDIT;
use crate::{MAX_ISOLATED_CRASHES, MAX_SHARED_CRASHES, MESSAGE_VERSION};

pub(super) struct Scripts {
    pub(super) enqueue: Script,
    pub(super) lease: Script,
    pub(super) renew: Script,
    pub(super) settle: Script,
    pub(super) condemn: Script,
    pub(super) cancel: Script,
    pub(super) reprioritize: Script,
    pub(super) holds: Script,
    pub(super) depth: Script,
    pub(super) pressure: Script,
    pub(super) flow: Script,
    pub(super) letter: Script,
    pub(super) report: Script,
    pub(super) workers: Script,
    pub(super) retire: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |text: &str| {
            Script::new(&format!(
                "local VERSION, COMPANY, LETHAL, SAVED = {MESSAGE_VERSION}, {MAX_SHARED_CRASHES}, {}, {MAX_FAIRNESS_CREDIT}\n{}\n{text}",
                MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES,
                include_str!("scripts/common.lua"),
            ))
        };
        Self {
            enqueue: script(include_str!("scripts/enqueue.lua")),
            lease: script(include_str!("scripts/lease.lua")),
            renew: script(include_str!("scripts/renew.lua")),
            settle: script(include_str!("scripts/settle.lua")),
            condemn: script(include_str!("scripts/condemn.lua")),
            cancel: script(include_str!("scripts/cancel.lua")),
            reprioritize: script(include_str!("scripts/reprioritize.lua")),
            holds: script(include_str!("scripts/holds.lua")),
            depth: script(include_str!("scripts/depth.lua")),
            pressure: script(include_str!("scripts/pressure.lua")),
            flow: script(include_str!("scripts/flow.lua")),
            letter: script(include_str!("scripts/letter.lua")),
            report: script(include_str!("scripts/report.lua")),
            workers: script(include_str!("scripts/workers.lua")),
            retire: script(include_str!("scripts/retire.lua")),
        }
    }
}
