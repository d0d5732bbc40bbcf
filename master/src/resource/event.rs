//! outline
use super::strategy::Strategy;
pub(super) struct EventStrategy;
impl Strategy for EventStrategy {}
