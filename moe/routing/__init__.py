"""What routers did: load statistics, specialization of experts, recorded routing and its replay."""
