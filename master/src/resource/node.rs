//! outline
use super::strategy::Strategy;
pub(super) struct NodeStrategy;
impl Strategy for NodeStrategy {}
