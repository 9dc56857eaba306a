//! `/user/{userId}/…/account_data/{type}` in every scope.

mod authorization;
mod deletion;
mod order;
