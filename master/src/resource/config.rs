//! outline
use super::strategy::Strategy;
pub(super) struct ConfigMapStrategy;
impl Strategy for ConfigMapStrategy {}
pub(super) struct SecretStrategy;
impl Strategy for SecretStrategy {}
pub(super) struct ServiceAccountStrategy;
impl Strategy for ServiceAccountStrategy {}
