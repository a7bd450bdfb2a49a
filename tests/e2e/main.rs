//! End-to-end tests: the real conductord, conductorctl and conductor-shim with a scripted agent, real signals and real
//! kills. One binary, so that it is linked once; a module for each part of the promise.

mod auth;
mod bus;
mod children;
mod clients;
mod common;
mod failpoints;
mod foreign;
mod hostile;
mod input;
mod ralph;
mod recovery;
mod steering;
mod watching;
