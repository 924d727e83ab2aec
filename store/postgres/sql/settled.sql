SELECT settled()
