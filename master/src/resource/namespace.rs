//! outline
use super::strategy::Strategy;
pub(super) struct NamespaceStrategy;
impl Strategy for NamespaceStrategy {}
