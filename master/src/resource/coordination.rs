//! outline
use super::strategy::Strategy;
pub(super) struct LeaseStrategy;
impl Strategy for LeaseStrategy {}
